import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { parseEndpoints } from '../src/discovery.js'
import { normalizeBaseUrl } from '../src/connections.js'
import type { Dialer, Link, LinkClosed, LinkHandlers } from '../src/link/link.js'
import { MemoryNetwork } from '../src/link/memory.js'
import { websocketDialer } from '../src/link/websocket.js'
import { decodeMultiplexed, encodeMultiplexed, Reassembler } from '../src/protocol/index.js'
import { race } from '../src/race.js'
import { advance, settle } from './support/harness.js'

const idle: LinkHandlers = { onMessage: ignore, onDatagram: ignore, onChannelEnd: ignore, onClose: ignore }

function ignore(): void {
  // Nothing to do with it in this test.
}

describe('the race', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  const networks = (): { first: MemoryNetwork; second: MemoryNetwork; dialers: Dialer[] } => {
    const first = new MemoryNetwork()
    const second = new MemoryNetwork()
    const dialers: Dialer[] = [
      { ...first.dialer, carrier: 'webtransport' },
      { ...second.dialer, carrier: 'websocket' },
    ]
    return { first, second, dialers }
  }
  const run = (dialers: Dialer[], stop = new AbortController()): Promise<{ link: Link; beaten: readonly string[] }> =>
    race(dialers, 1_500, stop.signal, () => idle)

  it('is over before the second starts when the first is up within its head start', async () => {
    const { second, dialers } = networks()
    const { beaten } = await run(dialers)
    expect([beaten, second.links.length, second.nWaiting]).toEqual([[], 0, 0])
    expect(vi.getTimerCount()).toBe(0)
  })

  it('starts the second at once when the first fails', async () => {
    const { first, second, dialers } = networks()
    first.refuseAll(new Error('no QUIC'))
    const { link, beaten } = await run(dialers)
    expect([link, beaten]).toEqual([second.links[0], ['webtransport']])
    expect(vi.getTimerCount()).toBe(0)
  })

  it('starts the second beside a first that hangs, and calls the loser off', async () => {
    const { first, second, dialers } = networks()
    first.automatic = false
    const outcome = run(dialers)
    await advance(1_400)
    expect(second.links).toHaveLength(0)
    await advance(200)
    expect((await outcome).link).toBe(second.links[0])
    first.accept()
    await settle()
    expect(first.links).toHaveLength(0)
  })

  it('closes a loser that comes up in the same moment', async () => {
    let late: (link: Link) => void = ignore
    const { second, dialers } = networks()
    const loser = { ...dialers[0], dial: () => new Promise<Link>((resolve) => (late = resolve)) } as Dialer
    const outcome = run([loser, ...dialers.slice(1)])
    await advance(1_600)
    expect((await outcome).link).toBe(second.links[0])
    const closed: string[] = []
    late({ ...idleLink(), close: (reason) => closed.push(reason) })
    await settle()
    expect(closed).toEqual(['another carrier was faster'])
  })

  it('fails with every reason when nothing works, and when it is told to stop', async () => {
    const { first, second, dialers } = networks()
    first.refuseAll(new Error('no QUIC'))
    second.refuseAll(new Error('no TCP'))
    await expect(run(dialers)).rejects.toThrow('no QUIC; no TCP')
    await expect(run([])).rejects.toThrow('no carrier')
    const hanging = networks()
    hanging.first.automatic = false
    const stop = new AbortController()
    const outcome = run(hanging.dialers, stop)
    stop.abort(new Error('enough'))
    await expect(outcome).rejects.toThrow('enough')
    expect(vi.getTimerCount()).toBe(0)
  })
})

function idleLink(): Link {
  return { carrier: 'memory', open: ignore, send: ignore, datagram: () => false, finish: ignore, close: ignore }
}

describe('the link without a network', () => {
  it('moves nothing until it is told to, keeps what was sent in order, and is over once', async () => {
    const network = new MemoryNetwork()
    network.automatic = false
    const heard: unknown[] = []
    const handlers: LinkHandlers = {
      onMessage: (channel, bytes) => heard.push(['message', channel, ...bytes]),
      onDatagram: (channel, bytes) => heard.push(['datagram', channel, ...bytes]),
      onChannelEnd: (channel) => heard.push(['end', channel]),
      onClose: ({ code }) => heard.push(['close', code]),
    }
    const dialled = network.dialer.dial(handlers, new AbortController().signal)
    await Promise.resolve()
    expect([network.nWaiting, network.links]).toEqual([1, []])
    network.accept()
    const link = await dialled
    const [server] = network.links
    if (server === undefined) throw new Error('nothing was dialled')
    link.open(1, Uint8Array.of(1))
    link.send(1, Uint8Array.of(2))
    expect([link.datagram(1, new Uint8Array(1_101)), link.datagram(1, Uint8Array.of(3))]).toEqual([false, true])
    link.finish(1)
    await Promise.resolve()
    expect(heard).toEqual([])
    expect(server.takeSent().map(({ kind }) => kind)).toEqual(['open', 'message', 'datagram', 'finish'])
    expect(server.takeSent()).toEqual([])
    server.deliverDatagram(1, Uint8Array.of(5))
    server.deliver(1, Uint8Array.of(4))
    server.endChannel(1)
    server.drop()
    server.drop()
    server.deliver(1, Uint8Array.of(6))
    link.send(1, Uint8Array.of(7))
    expect(heard).toEqual([['datagram', 1, 5], ['message', 1, 4], ['end', 1], ['close', 1006]])
    expect(server.takeSent()).toEqual([])
  })
})

/** As much of a WebSocket as the link touches. */
class FakeSocket {
  static last: FakeSocket
  readonly OPEN = 1
  readyState = 0
  binaryType = ''
  sent: Uint8Array[] = []
  closedWith: number | undefined
  onopen: (() => void) | null = null
  onmessage: ((event: { data: unknown }) => void) | null = null
  onclose: ((event: { code: number; reason: string }) => void) | null = null
  onerror: (() => void) | null = null

  constructor(readonly url: string) {
    FakeSocket.last = this
  }

  open(): void {
    this.readyState = 1
    this.onopen?.()
  }

  send(bytes: Uint8Array): void {
    this.sent.push(bytes)
  }

  close(code?: number): void {
    this.readyState = 3
    this.closedWith = code
  }
}

describe('the WebSocket link', () => {
  const dial = async (handlers: LinkHandlers): Promise<{ link: Link; socket: FakeSocket }> => {
    const dialer = websocketDialer('ws://test/ws', FakeSocket as unknown as new (url: string) => WebSocket)
    const dialled = dialer.dial(handlers, new AbortController().signal)
    FakeSocket.last.open()
    return { link: await dialled, socket: FakeSocket.last }
  }

  it('multiplexes channels on one socket and has no datagrams', async () => {
    const { link, socket } = await dial(idle)
    link.open(0, new Uint8Array([4, 1]))
    link.send(300, new Uint8Array([5]))
    expect(socket.sent.map((part) => [...part])).toEqual([
      [0, 4, 1],
      [0xac, 2, 5],
    ])
    expect(link.datagram(1, new Uint8Array(1))).toBe(false)
  })

  it('splits what is over 256 KiB, and joins what the server split', async () => {
    const received: [number, Uint8Array][] = []
    const { link, socket } = await dial({ ...idle, onMessage: (channel, message) => received.push([channel, message]) })
    const large = new Uint8Array(700_000).map((_, i) => i % 251)
    large[0] = 40
    link.send(2, large)
    expect(socket.sent.length).toBe(3)
    expect(Math.max(...socket.sent.map((part) => part.length))).toBeLessThan(256 * 1024 + 32)
    const reassembler = new Reassembler()
    const whole = socket.sent.map((part) => {
      const { channel, message } = decodeMultiplexed(part)
      return reassembler.push(channel, message)
    })
    expect(whole.map((message) => message === null)).toEqual([true, true, false])
    // Not toEqual, which takes seconds for so many bytes.
    expect(Buffer.compare(whole[2] ?? new Uint8Array(0), large)).toBe(0)
    // Another channel's message may come between the pieces.
    const parts = encodeMultiplexed(2, large)
    parts.splice(1, 0, ...encodeMultiplexed(0, new Uint8Array([13])))
    for (const part of parts) socket.onmessage?.({ data: part.buffer })
    expect(received.map(([channel, message]) => [channel, message.length])).toEqual([
      [0, 1],
      [2, 700_000],
    ])
  })

  it('reports the close code, once, and nothing after it', async () => {
    const closes: LinkClosed[] = []
    const { socket } = await dial({ ...idle, onClose: (closed) => closes.push(closed) })
    socket.onclose?.({ code: 4401, reason: 'auth_required' })
    socket.onclose?.({ code: 1006, reason: '' })
    expect(closes).toEqual([{ code: 4401, reason: 'auth_required' }])
  })

  it('gives up on a server that sends what cannot be read', async () => {
    const closes: LinkClosed[] = []
    const { socket } = await dial({ ...idle, onClose: (closed) => closes.push(closed) })
    socket.onmessage?.({ data: new Uint8Array([0x80]).buffer })
    expect([closes.length, socket.closedWith]).toEqual([1, 1000])
  })

  it('rejects when the socket cannot be opened, and when it is told to stop', async () => {
    const dialer = websocketDialer('ws://test/ws', FakeSocket as unknown as new (url: string) => WebSocket)
    const failing = dialer.dial(idle, new AbortController().signal)
    FakeSocket.last.onerror?.()
    await expect(failing).rejects.toThrow('could not be opened')
    const stop = new AbortController()
    const stopped = dialer.dial(idle, stop.signal)
    stop.abort(new Error('enough'))
    await expect(stopped).rejects.toThrow('enough')
    expect(FakeSocket.last.readyState).toBe(3)
  })
})

describe('discovery', () => {
  it('reads what the server offers', () => {
    const endpoints = parseEndpoints('https://sync.example', {
      webtransport: { url: 'https://sync.example:4433/', certificateHashes: [btoa('\x01\x02')] },
      websocket: '/ws',
    })
    expect(endpoints).toEqual({
      webtransport: { url: 'https://sync.example:4433/', certificateHashes: [new Uint8Array([1, 2])] },
      websocketUrl: 'wss://sync.example/ws',
    })
  })

  it('does without WebTransport, keeps a path prefix, and takes a whole WebSocket address', () => {
    expect(parseEndpoints('http://localhost:8080/sync', { webtransport: null, websocket: '/ws' })).toEqual({
      webtransport: undefined,
      websocketUrl: 'ws://localhost:8080/sync/ws',
    })
    expect(parseEndpoints('http://localhost', { websocket: 'wss://other/ws' }).websocketUrl).toBe('wss://other/ws')
    expect(parseEndpoints('http://localhost', 'nonsense').websocketUrl).toBe('ws://localhost/ws')
  })

  it('knows one server by one name', () => {
    for (const url of ['http://localhost:8080', 'http://localhost:8080/', 'ws://localhost:8080', 'http://localhost:8080/?a#b']) {
      expect(normalizeBaseUrl(url)).toBe('http://localhost:8080')
    }
  })
})
