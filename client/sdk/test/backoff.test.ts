import { describe, expect, it } from 'vitest'
import { backoffMs, withinMs } from '../src/backoff.js'

describe('backoff', () => {
  const most = (nFailures: number): number => backoffMs(nFailures, () => 0.999999)

  it('doubles and is capped', () => {
    expect([1, 2, 3, 4].map((n) => Math.round(most(n)))).toEqual([500, 1000, 2000, 4000])
    expect(most(50)).toBeLessThanOrEqual(15_000)
    expect(most(1000)).toBeGreaterThan(14_900)
  })

  it('has full jitter: any wait down to none', () => {
    expect(backoffMs(6, () => 0)).toBe(0)
  })

  it('spreads over a window', () => {
    expect(withinMs(100, 300, () => 0.5)).toBe(200)
    expect(withinMs(300, 100, () => 0.5)).toBe(300)
  })
})
