// f32_tile: tile_product with operands in f32, which need no scales
// with: tile_product

alias Element = f32;

const STEP: u32 = 16u;

fn column_group(group: u32, is_up: bool, column: u32) -> Group {
  return load_column(group, is_up);
}

fn unscaled(sum: f32, row: u32, column: u32) -> f32 {
  return sum;
}
