// For tests that hold a clock against something. Whatever else the machine does makes a time longer, never shorter, so
// one good try of a few tells, and a wrong program fails them all.

/** Options of such a test. */
export const clocked = { retry: 3 } as const;
