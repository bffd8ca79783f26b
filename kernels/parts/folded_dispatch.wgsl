// folded_dispatch: numbers of workgroups and invocations in a dispatch that is folded into x and y
//
// A side of a dispatch has at most 65535 workgroups. So n workgroups are dispatched as (min(n, 65535), ceil(n / 65535),
// 1), and the last of them may have numbers from n on.

struct Invocation {
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
}

fn workgroup_number(own: Invocation) -> u32 {
  return own.workgroup.y * own.workgroups.x + own.workgroup.x;
}

// Of workgroups of 64.
fn invocation_number(own: Invocation) -> u32 {
  return workgroup_number(own) * 64u + own.local.x;
}
