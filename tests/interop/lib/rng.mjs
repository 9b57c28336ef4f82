// A small seeded generator (splitmix32), so that a seed is a whole session.

export class Rng {
  constructor (seed) {
    this.state = seed >>> 0
  }

  /** A 32-bit unsigned integer. */
  u32 () {
    this.state = (this.state + 0x9e3779b9) >>> 0
    let t = this.state ^ (this.state >>> 16)
    t = Math.imul(t, 0x21f0aaad)
    t ^= t >>> 15
    t = Math.imul(t, 0x735a2d97)
    return (t ^ (t >>> 15)) >>> 0
  }

  /** In [0, 1), with four digits, so that plans are short to print. */
  fraction () {
    return (this.u32() % 10000) / 10000
  }

  /** An integer in [low, high]. */
  int (low, high) {
    return low + (this.u32() % (high - low + 1))
  }

  chance (probability) {
    return this.u32() / 2 ** 32 < probability
  }

  pick (list) {
    return list[this.u32() % list.length]
  }

  /** One of `[weight, value]` pairs. */
  weighted (pairs) {
    const total = pairs.reduce((sum, [weight]) => sum + weight, 0)
    let at = (this.u32() / 2 ** 32) * total
    for (const [weight, value] of pairs) {
      at -= weight
      if (at < 0) return value
    }
    return pairs[pairs.length - 1][1]
  }
}
