import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Link, LinkHandlers } from '../src/link/link.js'
import { webtransportDialer } from '../src/link/webtransport.js'
import { encodeFrame } from '../src/protocol/index.js'

/** One stream of the fake: what the client wrote, write by write, and the server's end of it. */
class FakeStream {
  readonly writes: number[][] = []
  finished = false
  server: ReadableStreamDefaultController<Uint8Array> | undefined
  readonly writable = new WritableStream<Uint8Array>({
    write: (chunk) => void this.writes.push([...chunk]),
    close: () => void (this.finished = true),
  })
  readonly readable = new ReadableStream<Uint8Array>({
    start: (controller) => {
      this.server = controller
    },
  })
}

/** As much of a browser's WebTransport as the link touches. */
class FakeWebTransport {
  static last: FakeWebTransport
  static fails: Error | undefined
  readonly streams: FakeStream[] = []
  readonly datagramsSent: number[][] = []
  server: ReadableStreamDefaultController<Uint8Array> | undefined
  closedWith: unknown
  lose: (cause: Error) => void = () => undefined
  readonly ready: Promise<void>
  readonly closed: Promise<void>
  readonly datagrams = {
    maxDatagramSize: 1200,
    writable: new WritableStream<Uint8Array>({ write: (chunk) => void this.datagramsSent.push([...chunk]) }),
    readable: new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.server = controller
      },
    }),
  }
  /** Streams are made when the test says so. */
  held: (() => void)[] | undefined

  constructor(
    readonly url: string,
    readonly options: WebTransportOptions,
  ) {
    FakeWebTransport.last = this
    const { fails } = FakeWebTransport
    this.ready = fails === undefined ? Promise.resolve() : Promise.reject(fails)
    this.closed = new Promise((_, reject) => {
      this.lose = reject
    })
    if (fails !== undefined) this.lose(fails)
  }

  createBidirectionalStream(): Promise<FakeStream> {
    const stream = new FakeStream()
    this.streams.push(stream)
    const { held } = this
    return held === undefined ? Promise.resolve(stream) : new Promise((resolve) => held.push(() => { resolve(stream) }))
  }

  close(info: unknown): void {
    this.closedWith = info
  }
}

async function settle(): Promise<void> {
  for (let i = 0; i < 20; i += 1) await Promise.resolve()
  await new Promise((resolve) => setImmediate(resolve))
}

interface Seen {
  messages: [number, number[]][]
  datagrams: [number, number[]][]
  ended: number[]
  closes: string[]
}

async function dial(): Promise<{ link: Link; transport: FakeWebTransport; seen: Seen }> {
  const seen: Seen = { messages: [], datagrams: [], ended: [], closes: [] }
  const handlers: LinkHandlers = {
    onMessage: (channel, message) => seen.messages.push([channel, [...message]]),
    onDatagram: (channel, body) => seen.datagrams.push([channel, [...body]]),
    onChannelEnd: (channel) => seen.ended.push(channel),
    onClose: ({ reason }) => seen.closes.push(reason),
  }
  const link = await webtransportDialer('https://127.0.0.1:4433/', []).dial(handlers, new AbortController().signal)
  return { link, transport: FakeWebTransport.last, seen }
}

beforeEach(() => {
  FakeWebTransport.fails = undefined
  vi.stubGlobal('WebTransport', FakeWebTransport)
})

afterEach(() => {
  vi.unstubAllGlobals()
})

describe('the WebTransport link', () => {
  it('pins the certificate when it is given a hash, and leaves it to the browser when not', async () => {
    await dial()
    expect(FakeWebTransport.last.options.serverCertificateHashes).toBeUndefined()
    const value = new Uint8Array(32)
    await webtransportDialer('https://x/', [value]).dial({} as LinkHandlers, new AbortController().signal)
    expect(FakeWebTransport.last.options.serverCertificateHashes).toEqual([{ algorithm: 'sha-256', value }])
  })

  it('opens a stream with its channel and the first message in one write', async () => {
    const { link, transport } = await dial()
    link.open(0, new Uint8Array([0, 9]))
    link.open(300, new Uint8Array([32]))
    link.send(300, new Uint8Array([36, 1]))
    await settle()
    expect(transport.streams.map(({ writes }) => writes)).toEqual([[[0, 2, 0, 9]], [[0xac, 2, 1, 32, 2, 36, 1]]])
  })

  it('keeps what is sent, and the end, until the browser has made the stream', async () => {
    const { link, transport } = await dial()
    transport.held = []
    link.open(1, new Uint8Array([32]))
    link.send(1, new Uint8Array([36]))
    link.finish(1)
    link.send(1, new Uint8Array([40]))
    await settle()
    expect(transport.streams[0]?.writes).toEqual([])
    for (const make of transport.held) make()
    await settle()
    expect(transport.streams[0]?.writes).toEqual([[1, 1, 32, 1, 36]])
    expect(transport.streams[0]?.finished).toBe(true)
  })

  it('reads frames however they are cut', async () => {
    const { link, transport, seen } = await dial()
    link.open(7, new Uint8Array([32]))
    await settle()
    const bytes = [...encodeFrame(new Uint8Array([34, 1, 2])), ...encodeFrame(new Uint8Array([44]))]
    for (const byte of bytes) transport.streams[0]?.server?.enqueue(new Uint8Array([byte]))
    await settle()
    expect(seen.messages).toEqual([
      [7, [34, 1, 2]],
      [7, [44]],
    ])
  })

  it('says that a channel ended, whether the server finished or reset it, once', async () => {
    const { link, transport, seen } = await dial()
    link.open(1, new Uint8Array([32]))
    link.open(2, new Uint8Array([32]))
    await settle()
    transport.streams[0]?.server?.close()
    transport.streams[1]?.server?.error(new Error('reset'))
    await settle()
    expect(seen.ended).toEqual([1, 2])
    expect(transport.streams.map(({ finished }) => finished)).toEqual([true, true])
  })

  it('carries datagrams both ways, and refuses what is too large for any path', async () => {
    const { link, transport, seen } = await dial()
    expect(link.datagram(5, new Uint8Array([1, 2]))).toBe(true)
    expect(link.datagram(5, new Uint8Array(1_100))).toBe(false)
    transport.server?.enqueue(new Uint8Array([5, 3, 4]))
    transport.server?.enqueue(new Uint8Array([0x80]))
    await settle()
    expect(transport.datagramsSent).toEqual([[5, 1, 2]])
    expect(seen.datagrams).toEqual([[5, [3, 4]]])
  })

  it('reports a lost session once, and nothing after it', async () => {
    const { link, transport, seen } = await dial()
    link.open(0, new Uint8Array([0]))
    await settle()
    transport.lose(new Error('connection lost'))
    await settle()
    transport.streams[0]?.server?.error(new Error('connection lost'))
    await settle()
    expect([seen.closes, seen.ended]).toEqual([['connection lost'], []])
  })

  it('awaits the end of every document before an orderly close, which would overtake it', async () => {
    const { link, transport, seen } = await dial()
    link.open(0, new Uint8Array([0]))
    link.open(1, new Uint8Array([32]))
    await settle()
    link.send(1, new Uint8Array([36]))
    link.close('bye', true)
    await settle()
    expect(transport.streams.map(({ finished, writes }) => [finished, writes.length])).toEqual([
      [false, 1],
      [true, 2],
    ])
    // The server has not read it all yet.
    expect(transport.closedWith).toBeUndefined()
    transport.streams[1]?.server?.enqueue(encodeFrame(new Uint8Array([60])))
    transport.streams[1]?.server?.close()
    await settle()
    expect(transport.closedWith).toEqual({ closeCode: 0, reason: 'bye' })
    expect([seen.closes, seen.ended]).toEqual([[], []])
    expect(seen.messages).toEqual([])
  })

  it('rejects when the session cannot be had, and closes one that is called off', async () => {
    FakeWebTransport.fails = new Error('blocked')
    await expect(dial()).rejects.toThrow('webtransport: blocked')
    FakeWebTransport.fails = undefined
    const stop = new AbortController()
    const dialled = webtransportDialer('https://x/', []).dial({} as LinkHandlers, stop.signal)
    stop.abort(new Error('enough'))
    await expect(dialled).rejects.toThrow('enough')
    expect(FakeWebTransport.last.closedWith).toBeDefined()
  })
})
