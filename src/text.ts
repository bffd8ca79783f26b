// Text as JavaScript counts it, in UTF-16 units: what every room may need of it. Runs anywhere.

/** The first `length` UTF-16 units of a text, one less where that would cut a surrogate pair. */
export function wholeCharacters(text: string, length: number): string {
  const cutsPair = /[\ud800-\udbff]/.test(text.charAt(length - 1)) && /[\udc00-\udfff]/.test(text.charAt(length));
  return text.slice(0, cutsPair ? length - 1 : length);
}

/** A text of which files may have two forms, as checkouts on Windows do: its lines end in a line feed alone. */
export function withLineFeeds(text: string): string {
  return text.replaceAll("\r\n", "\n");
}

/**
 * What a terminal or a log viewer would obey instead of showing: C0 but for the line feed, DEL, C1, marks that turn the
 * direction of what follows, line and paragraph separators, what has no width.
 */
const invisible =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** A text with such characters as escapes, `\u001b`; in JSON, where they stand in strings only, it means the same. */
export function visibleText(text: string): string {
  return text.replace(invisible, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
