/** The golden frames of tests/vectors, which the server's codec reads too. */

import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { ClientMessage, ServerMessage } from './index.js'
import {
  capsToServer,
  decodeClient,
  decodeMultiplexed,
  decodeServer,
  encodeClient,
  encodeFrame,
  encodeServer,
  errorName,
  errorNameOfCloseCode,
  ERRORS,
  FrameDecoder,
  isFinalWebSocketCode,
  Position,
  ProtocolError,
  Reassembler,
} from './index.js'

interface Messages {
  messages: { name: string; direction: 'to_server' | 'to_client'; hex: string; fields: unknown }[]
  invalid: {
    name: string
    direction: 'to_server' | 'to_client'
    hex: string
    error: string | null
    byChannel?: boolean
  }[]
}

interface Frames {
  streams: { name: string; hex: string; messages: string[]; error: string | null; unfinished: boolean }[]
}

interface Sockets {
  sockets: {
    name: string
    pendingBytesMax: number
    input: string[]
    output: { channel: number; hex: string }[]
    error: string | null
  }[]
}

interface Errors {
  errors: { number: number; name: string; retryable: boolean; closeCode: number; text: string }[]
}

function load(name: string): unknown {
  return JSON.parse(readFileSync(new URL(`../../../../tests/vectors/${name}.json`, import.meta.url), 'utf8'))
}

function bytes(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'))
}

function hex(value: Uint8Array): string {
  return Buffer.from(value).toString('hex')
}

/** A decoded message as the vectors write it: bytes in hex, codes by name, positions as pairs. */
function fields(message: ClientMessage | ServerMessage): unknown {
  const plain = (value: unknown): unknown => {
    if (value === undefined) return null
    if (value instanceof Uint8Array) return hex(value)
    if (value instanceof Position) return value.entries()
    if (Array.isArray(value)) return value.map(plain)
    return value
  }
  const entries = Object.entries(message).map(([key, value]: [string, unknown]) => {
    if (key === 'code' && typeof value === 'number') return [key, errorName(value)]
    if (key === 'position' && value instanceof Uint8Array) return [key, Position.decode(value).entries()]
    return [key, plain(value)]
  })
  return Object.fromEntries(entries)
}

/** The reason of the `ProtocolError` that `run` throws, null when it throws none. */
function reason(run: () => unknown): string | null {
  try {
    run()
    return null
  } catch (error) {
    if (error instanceof ProtocolError) return error.reason
    throw error
  }
}

describe('messages', () => {
  const { messages, invalid } = load('messages') as Messages

  it.each(messages)('$name', (vector) => {
    if (vector.direction === 'to_server') {
      const message = decodeClient(bytes(vector.hex))
      expect(message && fields(message)).toEqual(vector.fields)
      expect(message && hex(encodeClient(message))).toBe(vector.hex)
    } else {
      const message = decodeServer(bytes(vector.hex))
      expect(message && fields(message)).toEqual(vector.fields)
      expect(message && hex(encodeServer(message))).toBe(vector.hex)
    }
  })

  it.each(invalid.filter((vector) => vector.byChannel !== true))('refused: $name', (vector) => {
    const decode = vector.direction === 'to_server' ? decodeClient : decodeServer
    expect(reason(() => decode(bytes(vector.hex)))).toBe(vector.error)
    if (vector.error === null) expect(decode(bytes(vector.hex))).toBeNull()
  })
})

describe('streams', () => {
  const { streams } = load('frames') as Frames

  it.each(streams)('$name', (vector) => {
    for (const step of [Number.MAX_SAFE_INTEGER, 3, 1]) {
      const decoder = new FrameDecoder(capsToServer)
      const input = bytes(vector.hex)
      const messages: string[] = []
      const error = reason(() => {
        for (let at = 0; at < input.length; at += step) {
          for (const message of decoder.push(input.subarray(at, at + step))) messages.push(hex(message))
        }
      })
      expect(error).toBe(vector.error)
      expect(messages).toEqual(vector.messages)
      if (error === null) expect(decoder.isBetweenFrames).toBe(!vector.unfinished)
    }
  })
})

describe('WebSockets', () => {
  const { sockets } = load('websocket') as Sockets

  it.each(sockets)('$name', (vector) => {
    const reassembler = new Reassembler(capsToServer, vector.pendingBytesMax)
    const output: { channel: number; hex: string }[] = []
    const error = reason(() => {
      for (const input of vector.input) {
        const { channel, message } = decodeMultiplexed(bytes(input))
        const whole = reassembler.push(channel, message)
        if (whole !== null) output.push({ channel, hex: hex(whole) })
      }
    })
    expect(error).toBe(vector.error)
    expect(output).toEqual(vector.output)
  })
})

describe('errors', () => {
  const { errors } = load('errors') as Errors

  it('are those of the server', () => {
    const ours = Object.entries(ERRORS).map(([name, entry]) => ({ name, ...entry }))
    expect(ours).toEqual(errors.map((error) => expect.objectContaining(error) as unknown))
  })

  it('read back', () => {
    for (const { number, name, closeCode, retryable } of errors) {
      expect(errorName(number)).toBe(name)
      expect(errorNameOfCloseCode(closeCode)).toBe(name)
      if (isFinalWebSocketCode(closeCode)) expect(retryable).toBe(false)
    }
    expect(errorName(900)).toBe('internal')
    expect(errorNameOfCloseCode(1006)).toBeUndefined()
  })
})

describe('arbitrary bytes', () => {
  it('never fail with anything but a ProtocolError', () => {
    // A fixed generator, so that a failure comes back.
    let state = 1
    const next = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
      return (state >>> 8) % below
    }
    const { messages } = load('messages') as Messages
    for (let round = 0; round < 5_000; round++) {
      const input = bytes(messages[next(messages.length)]?.hex ?? '')
      for (let i = 0; i < next(4); i++) if (input.length > 0) input[next(input.length)] = next(256)
      const cut = input.subarray(0, next(input.length + 1))
      reason(() => decodeClient(cut))
      reason(() => decodeServer(cut))
      reason(() => [...new FrameDecoder(capsToServer).push(encodeFrame(cut))])
      reason(() => [...new FrameDecoder(capsToServer).push(cut)])
    }
  })
})
