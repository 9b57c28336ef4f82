/**
 * How far this copy is in the document's log: a token that the client keeps by the rule PO1 and hands
 * back when it opens the document again. What its entries mean is the server's affair.
 */

import { ProtocolError, Reader, Writer } from './wire.js'

/** The most entries that a received position may have. */
const ENTRIES_MAX = 16_384

/** The length of an origin in bytes. */
const ORIGIN_BYTES = 8

/** Origin (in hex) to the last sequence of it. */
export class Position {
  readonly #entries = new Map<string, number>()

  /** Reads all of `bytes`. */
  static decode(bytes: Uint8Array): Position {
    const reader = new Reader(bytes)
    const n = reader.uint()
    if (n > ENTRIES_MAX) throw new ProtocolError('bad_position')
    const position = new Position()
    let last = ''
    for (let i = 0; i < n; i++) {
      const origin = toHex(reader.bytes(ORIGIN_BYTES))
      const sequence = reader.uint()
      if (origin <= last || sequence === 0) throw new ProtocolError('bad_position')
      last = origin
      position.#entries.set(origin, sequence)
    }
    reader.end()
    return position
  }

  /** True before everything. */
  get isEmpty(): boolean {
    return this.#entries.size === 0
  }

  /** The last sequence of an origin (in hex), 0 when there is none. */
  get(origin: string): number {
    return this.#entries.get(origin) ?? 0
  }

  /** Origins and sequences, by origin. */
  entries(): [string, number][] {
    return [...this.#entries].sort(([a], [b]) => (a < b ? -1 : 1))
  }

  /** Moves every origin forward to where `other` is; never back. */
  mergeMax(other: Position): void {
    for (const [origin, sequence] of other.#entries) {
      if (sequence > this.get(origin)) this.#entries.set(origin, sequence)
    }
  }

  encode(): Uint8Array<ArrayBuffer> {
    const writer = new Writer()
    writer.list(this.entries(), ([origin, sequence]) => writer.bytes(fromHex(origin)).uint(sequence))
    return writer.finish()
  }
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

function fromHex(hex: string): Uint8Array {
  return Uint8Array.from({ length: hex.length / 2 }, (_, i) => Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16))
}
