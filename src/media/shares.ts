// How those who store share one budget: whose assets go first when room is needed. Knows owners and bytes, no files.
// Everybody may use what nobody else does; a share of the budget, the same for each who stores, is safe from others.

/** Stands for whoever stored; undefined: nobody in particular. */
type Owner = string | undefined;

export type Shares = {
  /** Counts bytes that an owner has from now on; negative: no longer has. */
  count(owner: Owner, bytes: number): void;
  /**
   * Whose assets may go, the first first, so that `growth` more bytes of `owner` find room: of those who have more than their
   * share with it, whoever has the most; and always the owner's own.
   */
  givingWay(owner: Owner, growth: number): Owner[];
};

/** @param budgetBytes of all owners together */
export function sharesOf(budgetBytes: number): Shares {
  const held = new Map<Owner, number>();
  return {
    count(owner, bytes) {
      const now = (held.get(owner) ?? 0) + bytes;
      if (now > 0) held.set(owner, now);
      else held.delete(owner);
    },
    givingWay(owner, growth) {
      const wanted = new Map(held).set(owner, (held.get(owner) ?? 0) + growth);
      const share = budgetBytes / wanted.size;
      return [...wanted]
        .filter(([candidate, bytes]) => bytes > share || candidate === owner)
        .sort(([, a], [, b]) => b - a)
        .map(([candidate]) => candidate);
    },
  };
}
