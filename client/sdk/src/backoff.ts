/**
 * How long to wait before dialling again. Pure: the caller brings the randomness.
 */

/** The longest wait after a first failure. */
const FIRST_MS = 500

/** No wait is longer: a person who looks at the page again should not wait for much more. */
const CAP_MS = 15_000

/** Full jitter: anywhere between nothing and the cap of this attempt, so that crowds spread out. */
export function backoffMs(nFailures: number, random: () => number): number {
  const ceiling = Math.min(CAP_MS, FIRST_MS * 2 ** Math.min(Math.max(nFailures - 1, 0), 10))
  return random() * ceiling
}

/** Milliseconds, evenly spread over a window that the server named. */
export function withinMs(minMs: number, maxMs: number, random: () => number): number {
  return minMs + random() * Math.max(0, maxMs - minMs)
}
