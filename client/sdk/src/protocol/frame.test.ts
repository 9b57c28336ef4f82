import { describe, expect, it } from 'vitest'
import {
  decodeDatagram,
  decodeMultiplexed,
  encodeClient,
  encodeDatagram,
  encodeFrame,
  encodeMultiplexed,
  FRAGMENT_BYTES_MAX,
  FrameDecoder,
  Position,
  Reassembler,
  TYPE,
} from './index.js'

function sync(nBytes: number): Uint8Array {
  const message = Uint8Array.from({ length: nBytes }, (_, i) => i % 251)
  message[0] = TYPE.sync
  return message
}

describe('fragments', () => {
  it.each([1, FRAGMENT_BYTES_MAX, FRAGMENT_BYTES_MAX + 1, 2 * FRAGMENT_BYTES_MAX, 700_001])(
    'carry a message of %i bytes',
    (nBytes) => {
      const message = sync(nBytes)
      const parts = encodeMultiplexed(300, message)
      expect(parts.length).toBe(Math.ceil(nBytes / FRAGMENT_BYTES_MAX))
      const reassembler = new Reassembler()
      const whole = parts.map((part) => {
        const { channel, message: piece } = decodeMultiplexed(part)
        expect(channel).toBe(300)
        return reassembler.push(channel, piece)
      })
      expect(whole.slice(0, -1).every((piece) => piece === null)).toBe(true)
      // Not toEqual, which takes seconds for so many bytes.
      expect(Buffer.compare(whole.at(-1) ?? new Uint8Array(0), message)).toBe(0)
    },
  )

  it('of a closed channel are dropped', () => {
    const reassembler = new Reassembler()
    const [first] = encodeMultiplexed(1, sync(300_000))
    expect(first && reassembler.push(1, decodeMultiplexed(first).message)).toBeNull()
    reassembler.forget(1)
    const close = encodeClient({ type: 'close' })
    expect(reassembler.push(1, close)).toEqual(close)
  })
})

describe('frames', () => {
  it('come out however the stream is cut', () => {
    const messages = [sync(1), sync(130), sync(70_000), encodeClient({ type: 'close' })]
    const stream = Buffer.concat(messages.map((message) => encodeFrame(message)))
    for (const step of [1, 2, 127, 4096, stream.length]) {
      const decoder = new FrameDecoder()
      const out = []
      for (let at = 0; at < stream.length; at += step) out.push(...decoder.push(stream.subarray(at, at + step)))
      expect(Buffer.compare(Buffer.concat(out), Buffer.concat(messages))).toBe(0)
      expect(out.map(({ length }) => length)).toEqual(messages.map(({ length }) => length))
      expect(decoder.isBetweenFrames).toBe(true)
    }
  })
})

describe('datagrams', () => {
  it('read back, and a malformed one is nothing', () => {
    expect(decodeDatagram(encodeDatagram(300, Uint8Array.of(0)))).toEqual({ channel: 300, body: Uint8Array.of(0) })
    expect(decodeDatagram(Uint8Array.of(0x80))).toBeNull()
  })
})

describe('a position', () => {
  it('merges by maximum', () => {
    const position = Position.decode(Uint8Array.of(1, 1, 1, 1, 1, 1, 1, 1, 1, 5))
    position.mergeMax(Position.decode(Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0, 0, 9, 1, 1, 1, 1, 1, 1, 1, 1, 4)))
    expect(position.entries()).toEqual([
      ['0000000000000000', 9],
      ['0101010101010101', 5],
    ])
    expect(Position.decode(position.encode()).entries()).toEqual(position.entries())
  })
})
