/**
 * The encodings of `lib0`, read strictly: each number has one encoding, none is above 2^53 - 1, text
 * is UTF-8 and lengths fit. Everything that cannot be read is a `ProtocolError` with a stable reason.
 */

import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'

/** Why bytes could not be read. The golden frames name the same reasons. */
export type ProtocolReason =
  | 'truncated'
  | 'out_of_range'
  | 'overlong'
  | 'not_text'
  | 'trailing'
  | 'bad_position'
  | 'unknown_type'
  | 'misplaced'
  | 'bad_value'
  | 'long_list'
  | 'empty'
  | 'too_large'
  | 'too_much_pending'
  | 'too_many_partials'
  | 'bad_fragment'
  | 'nested_fragment'
  | 'interrupted'

/** The peer sent something that breaks the protocol. */
export class ProtocolError extends Error {
  constructor(readonly reason: ProtocolReason) {
    super(`protocol error: ${reason}`)
    this.name = 'ProtocolError'
  }
}

/** The most elements of any list in a message. */
export const LIST_LEN_MAX = 64

/** The longest encoding of an integer. */
export const VARINT_BYTES_MAX = 8

const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Reads values from the front of bytes. */
export class Reader {
  readonly #decoder: decoding.Decoder

  constructor(bytes: Uint8Array) {
    this.#decoder = decoding.createDecoder(bytes)
  }

  /** How many bytes have not been read. */
  get nLeft(): number {
    return this.#decoder.arr.length - this.#decoder.pos
  }

  uint(): number {
    let value = 0
    let factor = 1
    for (let i = 0; i < VARINT_BYTES_MAX; i++) {
      if (this.nLeft === 0) throw new ProtocolError('truncated')
      const byte = decoding.readUint8(this.#decoder)
      // At most 56 bits: beyond 2^53 this rounds, never below it.
      value += (byte & 0x7f) * factor
      factor *= 128
      if (byte < 0x80) {
        if (byte === 0 && i > 0) throw new ProtocolError('overlong')
        if (value > Number.MAX_SAFE_INTEGER) throw new ProtocolError('out_of_range')
        return value
      }
    }
    throw new ProtocolError('out_of_range')
  }

  /** The next `n` bytes: a view, not a copy. */
  bytes(n: number): Uint8Array {
    if (n > this.nLeft) throw new ProtocolError('truncated')
    return decoding.readUint8Array(this.#decoder, n)
  }

  /** Length-prefixed bytes: a view, not a copy. */
  buf(): Uint8Array {
    return this.bytes(this.uint())
  }

  str(): string {
    const bytes = this.buf()
    try {
      return text.decode(bytes)
    } catch {
      throw new ProtocolError('not_text')
    }
  }

  flag(): boolean {
    const value = this.uint()
    if (value > 1) throw new ProtocolError('bad_value')
    return value === 1
  }

  optional<T>(read: () => T): T | undefined {
    return this.flag() ? read() : undefined
  }

  list<T>(read: () => T): T[] {
    const n = this.uint()
    if (n > LIST_LEN_MAX) throw new ProtocolError('long_list')
    return Array.from({ length: n }, read)
  }

  /** All that has not been read. */
  rest(): Uint8Array {
    return this.bytes(this.nLeft)
  }

  end(): void {
    if (this.nLeft > 0) throw new ProtocolError('trailing')
  }
}

/** Appends values to bytes. */
export class Writer {
  readonly #encoder = encoding.createEncoder()

  uint(value: number): this {
    encoding.writeVarUint(this.#encoder, value)
    return this
  }

  bytes(bytes: Uint8Array): this {
    encoding.writeUint8Array(this.#encoder, bytes)
    return this
  }

  /** Bytes whose length both sides know. */
  fixed(bytes: Uint8Array, length: number): this {
    if (bytes.length !== length) throw new RangeError(`expected ${length} bytes, got ${bytes.length}`)
    return this.bytes(bytes)
  }

  buf(bytes: Uint8Array): this {
    encoding.writeVarUint8Array(this.#encoder, bytes)
    return this
  }

  str(value: string): this {
    encoding.writeVarString(this.#encoder, value)
    return this
  }

  flag(value: boolean): this {
    return this.uint(value ? 1 : 0)
  }

  optional<T>(value: T | undefined, write: (value: T) => void): this {
    this.flag(value !== undefined)
    if (value !== undefined) write(value)
    return this
  }

  list<T>(values: readonly T[], write: (value: T) => void): this {
    this.uint(values.length)
    values.forEach(write)
    return this
  }

  finish(): Uint8Array<ArrayBuffer> {
    return encoding.toUint8Array(this.#encoder)
  }
}
