// latent_tokens: tokens, and the 2 x 2 pixels of an image that each of them stands for
// with: folded_dispatch
//
// A dispatch's tokens begin at the start of a row of tokens, and its image at the pixels that belong to it.

struct LatentParams {
  rows: u32, width: u32, // tokens, and how many are in a row of them
  channels: u32, x_pitch: u32, x_offset: u32, y_pitch: u32, y_offset: u32, eps: f32,
}

// A token's first pixel. The second is the next one; the others lie below them, 2 * width pixels further on.
fn pixel_of(token: u32) -> u32 {
  return token / params.width * 4u * params.width + token % params.width * 2u;
}

fn vectors_of_row() -> u32 {
  return params.y_pitch / 4u;
}

// An invocation has one vector of a token's row of y.
fn token_of(own: Invocation) -> u32 {
  return invocation_number(own) / vectors_of_row();
}

fn vector_of(own: Invocation) -> u32 {
  return invocation_number(own) % vectors_of_row();
}
