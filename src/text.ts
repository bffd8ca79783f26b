// Text as JavaScript counts it, in UTF-16 units: what every room may need of it. Runs anywhere.

/** The first `length` UTF-16 units of a text, one less where that would cut a surrogate pair. */
export function wholeCharacters(text: string, length: number): string {
  const cutsPair = /[\ud800-\udbff]/.test(text.charAt(length - 1)) && /[\udc00-\udfff]/.test(text.charAt(length));
  return text.slice(0, cutsPair ? length - 1 : length);
}
