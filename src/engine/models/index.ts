// The families of models that there are. The only file outside a family's folder that names one; a family's code is loaded
// when a checkpoint turns out to be its own, so that whoever draws with one does not load the others'.

import type { Family } from "../family.js";

const flux2 = {
  name: "FLUX.2 [klein]",
  // Its siblings (Flux2KleinInpaintPipeline, …) are other ways of using the same parts.
  classes: ["Flux2KleinPipeline", "Flux2Klein*"],
  implements: "Flux2KleinPipeline: Flux2Transformer2DModel, AutoencoderKLFlux2, Qwen3ForCausalLM",
};

export const families: readonly Family[] = [
  { ...flux2, open: async (source, supported) => (await import("./flux2/family.js")).openFlux2(source, supported) },
];
