/**
 * Where one message ends and the next begins: frames on WebTransport streams, channel prefixes and
 * fragments on WebSockets, channel prefixes on datagrams.
 */

import { TYPE } from './message.js'
import { ProtocolError, Reader, VARINT_BYTES_MAX, Writer } from './wire.js'

/** The most bytes of a message in one WebSocket message; a longer one is split. */
export const FRAGMENT_BYTES_MAX = 256 * 1024

/** How many messages may be in pieces at once on one WebSocket. */
const PARTIALS_MAX = 64

/** The largest channel number. */
const CHANNEL_MAX = 2 ** 32 - 1

/** The most bytes of a message of each type. */
export type Caps = (type: number) => number

/** What a client takes of a server that it trusts: anything but a nonsensical length. */
export const capsToClient: Caps = () => 1024 * 1024 * 1024

/** What a server takes of a client unless it says otherwise in WELCOME. */
export const capsToServer: Caps = (type) => {
  switch (type) {
    case TYPE.hello:
    case TYPE.auth:
      return 8 * 1024
    case TYPE.ping:
    case TYPE.pong:
      return 16
    case TYPE.open:
      return 1024 * 1024
    case TYPE.clientUpdate:
      return 1024 * 1024 + 64
    case TYPE.sync:
      return 64 * 1024 * 1024
    case TYPE.presence:
    case TYPE.message:
      return 64 * 1024
    case TYPE.fragment:
      return FRAGMENT_BYTES_MAX + 16
    default:
      return 1024
  }
}

/** What opens a WebTransport stream. */
export function encodePreamble(channel: number): Uint8Array<ArrayBuffer> {
  return new Writer().uint(channel).finish()
}

/** A message as a frame on a stream. */
export function encodeFrame(message: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Writer().buf(message).finish()
}

/** A datagram: the channel and an awareness update. */
export function encodeDatagram(channel: number, body: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Writer().uint(channel).bytes(body).finish()
}

/** Reads a datagram; null when it is malformed, since a datagram is only ever a hint. */
export function decodeDatagram(bytes: Uint8Array): { channel: number; body: Uint8Array } | null {
  try {
    const { channel, message } = decodeMultiplexed(bytes)
    return { channel, body: message }
  } catch {
    return null
  }
}

/** A message as the WebSocket messages that carry it. They follow each other on their channel. */
export function encodeMultiplexed(channel: number, message: Uint8Array): Uint8Array<ArrayBuffer>[] {
  if (message.length <= FRAGMENT_BYTES_MAX) return [new Writer().uint(channel).bytes(message).finish()]
  const parts = []
  for (let start = 0; start < message.length; start += FRAGMENT_BYTES_MAX) {
    const end = start + FRAGMENT_BYTES_MAX
    const writer = new Writer().uint(channel).uint(TYPE.fragment).flag(end >= message.length)
    parts.push(writer.bytes(message.subarray(start, end)).finish())
  }
  return parts
}

/** Takes the channel off a WebSocket message. */
export function decodeMultiplexed(bytes: Uint8Array): { channel: number; message: Uint8Array } {
  const reader = new Reader(bytes)
  const channel = reader.uint()
  if (channel > CHANNEL_MAX) throw new ProtocolError('out_of_range')
  return { channel, message: reader.rest() }
}

/** Finds the frames of a stream that arrives in pieces. After it has thrown, the stream cannot be read on. */
export class FrameDecoder {
  readonly #caps: Caps
  readonly #largest: number
  /** The length, byte by byte, and then up to one integer of the body, for its type. */
  readonly #head: number[] = []
  /** The frame's length once it is known. */
  #length: number | undefined
  #body: Uint8Array = new Uint8Array(0)
  #nBody = 0

  constructor(caps: Caps = capsToClient) {
    this.#caps = caps
    this.#largest = Math.max(caps(-1), ...Object.values(TYPE).map((type) => caps(type)))
  }

  /** True between two frames: the stream may end here. */
  get isBetweenFrames(): boolean {
    return this.#length === undefined && this.#head.length === 0
  }

  /** The messages that `chunk` completes. */
  *push(chunk: Uint8Array): Generator<Uint8Array, void, undefined> {
    let at = 0
    while (at < chunk.length) {
      if (this.#length === undefined) {
        const byte = chunk[at] ?? 0
        at += 1
        this.#head.push(byte)
        if (byte < 0x80 || this.#head.length === VARINT_BYTES_MAX) this.#begin()
        continue
      }
      if (this.#nBody === 0 && chunk.length - at >= this.#length) {
        const message = new Uint8Array(chunk.subarray(at, at + this.#length))
        at += this.#length
        this.#check(message, this.#length)
        this.#length = undefined
        yield message
        continue
      }
      const n = Math.min(this.#length - this.#nBody, chunk.length - at)
      this.#append(chunk.subarray(at, at + n), this.#length)
      at += n
      if (this.#nBody < this.#length) continue
      const message = this.#body.subarray(0, this.#length)
      this.#length = undefined
      this.#body = new Uint8Array(0)
      this.#nBody = 0
      yield message
    }
  }

  #begin(): void {
    const length = new Reader(Uint8Array.from(this.#head)).uint()
    this.#head.length = 0
    if (length === 0) throw new ProtocolError('empty')
    if (length > this.#largest) throw new ProtocolError('too_large')
    this.#length = length
  }

  #append(bytes: Uint8Array, length: number): void {
    const needed = this.#nBody + bytes.length
    if (this.#nBody < VARINT_BYTES_MAX) {
      // The type may not be known yet: judge it on what there is before any of it is kept.
      const head = new Uint8Array(Math.min(needed, VARINT_BYTES_MAX))
      head.set(this.#body.subarray(0, this.#nBody))
      head.set(bytes.subarray(0, head.length - this.#nBody), this.#nBody)
      const isKnown = head.some((byte) => byte < 0x80)
      if (isKnown || needed === length || head.length === VARINT_BYTES_MAX) this.#check(head, length)
    }
    if (needed > this.#body.length) {
      const grown = new Uint8Array(Math.max(needed, Math.min(length, Math.max(2 * this.#body.length, 4096))))
      grown.set(this.#body.subarray(0, this.#nBody))
      this.#body = grown
    }
    this.#body.set(bytes, this.#nBody)
    this.#nBody = needed
  }

  #check(body: Uint8Array, length: number): void {
    if (length > this.#caps(new Reader(body).uint())) throw new ProtocolError('too_large')
  }
}

interface Partial {
  readonly cap: number
  readonly pieces: Uint8Array[]
  nBytes: number
}

/** Puts the fragments of one WebSocket together. After it has thrown, the socket cannot be read on. */
export class Reassembler {
  readonly #caps: Caps
  readonly #pendingBytesMax: number
  readonly #partials = new Map<number, Partial>()
  #pendingBytes = 0

  constructor(caps: Caps = capsToClient, pendingBytesMax = 1024 * 1024 * 1024) {
    this.#caps = caps
    this.#pendingBytesMax = pendingBytesMax
  }

  /** Takes one message, channel off; the whole message when there is one. */
  push(channel: number, message: Uint8Array): Uint8Array | null {
    if (message.length === 0) throw new ProtocolError('empty')
    const reader = new Reader(message)
    const type = reader.uint()
    if (message.length > this.#caps(type)) throw new ProtocolError('too_large')
    if (type !== TYPE.fragment) {
      if (this.#partials.has(channel)) throw new ProtocolError('interrupted')
      return message
    }
    const last = reader.uint()
    const piece = reader.rest()
    if (last > 1 || piece.length === 0) throw new ProtocolError('bad_fragment')
    if (this.#pendingBytes + piece.length > this.#pendingBytesMax) throw new ProtocolError('too_much_pending')
    const partial = this.#partials.get(channel) ?? this.#begin(channel, piece)
    if (partial.nBytes + piece.length > partial.cap) throw new ProtocolError('too_large')
    partial.pieces.push(piece)
    partial.nBytes += piece.length
    this.#pendingBytes += piece.length
    if (last === 0) return null
    const whole = new Uint8Array(partial.nBytes)
    let at = 0
    for (const bytes of partial.pieces) {
      whole.set(bytes, at)
      at += bytes.length
    }
    this.forget(channel)
    return whole
  }

  /** Drops what a channel has pending: it was closed. */
  forget(channel: number): void {
    this.#pendingBytes -= this.#partials.get(channel)?.nBytes ?? 0
    this.#partials.delete(channel)
  }

  #begin(channel: number, piece: Uint8Array): Partial {
    if (this.#partials.size >= PARTIALS_MAX) throw new ProtocolError('too_many_partials')
    const type = new Reader(piece).uint()
    if (type === TYPE.fragment) throw new ProtocolError('nested_fragment')
    const partial = { cap: this.#caps(type), pieces: [], nBytes: 0 }
    this.#partials.set(channel, partial)
    return partial
  }
}
