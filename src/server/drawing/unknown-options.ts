// Members of a body that nobody reads: what the answer says of them. A request whose option was passed over in silence
// looks as if it had been obeyed. Knows the names that other image servers have for the options of this one.

/** Options by the names that this server's APIs give them, and what others call them, without capitals and dashes. */
const otherNames: Readonly<Record<string, readonly string[]>> = {
  width: ["imagewidth"],
  height: ["imageheight"],
  size: ["imagesize", "resolution", "dimensions"],
  aspect_ratio: ["ratio", "aspect"],
  steps: ["numinferencesteps", "inferencesteps", "numsteps", "samplingsteps", "samplesteps"],
  guidance_scale: ["guidance", "cfg", "cfgscale", "scale"],
  negative_prompt: ["negative", "negprompt"],
  seed: ["randomseed", "noiseseed"],
  n: ["numimages", "numimagesperprompt", "numoutputs", "numsamples", "batchsize", "niter", "samples", "count"],
  output_format: ["format", "imageformat", "fileformat"],
  output_compression: ["compression", "outputquality"],
  response_format: ["returnformat"],
  output_item: [],
  partial_images: [],
  progress: [],
  num_frames: ["frames", "numberofframes"],
  frames_per_second: ["fps", "framerate"],
};

/** Told by name; a body may have thousands. */
const maxTold = 8;
const maxToldLength = 64;

/**
 * A sentence for each unknown member of a body, for a person to read.
 * @param names paths of the members
 * @param places where this API has the options that it has
 */
export function unknownWarnings(names: readonly string[], places: Readonly<Record<string, string>>): string[] {
  const told = names.slice(0, maxTold).map((name) => {
    const place = places[meantOption(name) ?? ""];
    const hint = place === undefined ? "" : `: ${place} says that`;
    return `${JSON.stringify(name.slice(0, maxToldLength))} is not known here and was ignored${hint}`;
  });
  const rest = names.length - told.length;
  return rest > 0 ? [...told, `${rest} further members are not known here and were ignored`] : told;
}

/** The option that a name means, if it is one that others use for it or differs in capitals and dashes alone. */
function meantOption(name: string): string | undefined {
  const bare = (text: string) => text.toLowerCase().replaceAll(/[_\-\s]/g, "");
  // Of a path the last name; longer ones mean nothing.
  const wanted = bare(name.slice(0, maxToldLength).replace(/^.*\./, ""));
  return Object.keys(otherNames).find((option) => bare(option) === wanted || otherNames[option]?.includes(wanted));
}
