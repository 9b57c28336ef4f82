/** QUIC on networks that block it: what is remembered, and when it is tried again. */

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Carrier, Dialer } from '../src/link/link.js'
import { MemoryNetwork } from '../src/link/memory.js'
import { QuicMemory } from '../src/quic-memory.js'
import { advance, opened, settle, World } from './support/harness.js'

const MINUTE = 60_000

describe('the memory', () => {
  it('pauses longer after every failure, up to an hour, and beyond the page', () => {
    let kept: string | null = null
    const keep = { read: () => kept, write: (value: string) => void (kept = value) }
    let now = 1_000_000
    const pauses: number[] = []
    for (let i = 0; i < 6; i += 1) {
      const memory = new QuicMemory(keep)
      expect(memory.isBlocked(now)).toBe(false)
      memory.lost(now)
      pauses.push((memory.blockedUntil - now) / MINUTE)
      expect(new QuicMemory(keep).isBlocked(now)).toBe(true)
      now = memory.blockedUntil
    }
    expect(pauses).toEqual([5, 10, 20, 40, 60, 60])
    const memory = new QuicMemory(keep)
    memory.worked()
    expect(new QuicMemory(keep).blockedUntil).toBe(0)
  })

  it('holds nothing against a network where QUIC has worked, forgets on another, and is not fooled by clock or storage', () => {
    const memory = new QuicMemory({ read: () => 'rubbish', write: () => undefined })
    memory.worked()
    memory.lost(0)
    expect(memory.isBlocked(0)).toBe(false)
    memory.networkChanged()
    memory.lost(0)
    expect(memory.isBlocked(0)).toBe(true)
    // The clock was set back by a day.
    expect(memory.isBlocked(-24 * 60 * MINUTE)).toBe(false)
    memory.networkChanged()
    expect(memory.isBlocked(0)).toBe(false)
  })
})

describe('the connection', () => {
  let world: World
  let quic: MemoryNetwork
  let tcp: MemoryNetwork

  beforeEach(() => {
    vi.useFakeTimers()
    world = new World()
    quic = new MemoryNetwork()
    tcp = world.network
    world.dialers = [over('webtransport', quic), over('websocket', tcp)]
  })

  afterEach(() => {
    vi.useRealTimers()
  })

  /** The memory link, taken for a real carrier. */
  function over(carrier: Carrier, network: MemoryNetwork): Dialer {
    return {
      carrier,
      dial: async (handlers, signal) => {
        const link = await network.dialer.dial(handlers, signal)
        return new Proxy(link, {
          get: (target, key) => {
            if (key === 'carrier') return carrier
            const value: unknown = Reflect.get(target, key, target)
            return typeof value === 'function' ? (value as () => void).bind(target) : value
          },
        })
      },
    }
  }

  it('gives WebTransport 1.5 s alone, then races WebSocket; the loser is called off', async () => {
    quic.automatic = false
    const provider = world.provider()
    await advance(1_400)
    expect([quic.nWaiting, tcp.links.length]).toEqual([1, 0])
    await advance(200)
    expect(tcp.links.length).toBe(1)
    await world.open()
    expect(provider.carrier).toBe('websocket')
    quic.accept()
    await settle()
    // It came up after all, to nobody.
    expect(quic.links.length).toBe(0)
    provider.destroy()
  })

  it('keeps WebTransport when that is up within its head start', async () => {
    quic.automatic = false
    const provider = world.provider()
    await advance(1_400)
    quic.accept()
    await settle()
    await advance(10_000)
    expect([quic.links.length, tcp.links.length]).toEqual([1, 0])
    provider.destroy()
  })

  it('does without the head start on a network where QUIC failed, in the next page too', async () => {
    quic.automatic = false
    const provider = world.provider()
    await advance(2_000)
    await world.open()
    await world.lose()
    await advance(1_000)
    expect([quic.nWaiting, tcp.links.length]).toEqual([1, 2])
    const { kept } = world
    provider.destroy()
    world = new World(kept)
    world.dialers = [over('webtransport', quic), over('websocket', world.network)]
    expect(new QuicMemory({ read: () => kept, write: () => undefined }).isBlocked(Date.now())).toBe(true)
    const next = world.provider()
    await settle()
    expect([quic.nWaiting, world.nLinks]).toEqual([1, 1])
    await world.open()
    expect([next.status, next.carrier]).toEqual(['connected', 'websocket'])
    next.destroy()
  })

  it.each([
    ['there is no other carrier', (): Dialer[] => [over('websocket', tcp)], undefined],
    ['the question is not answered', (): Dialer[] => [over('websocket', tcp)], new Error('no network')],
  ])('holds nothing against QUIC when %s', async (_, dialers, error) => {
    world.dialers = dialers()
    const provider = world.provider()
    await world.open()
    world.discoveryError = error
    for (let i = 0; i < 30; i += 1) {
      await advance(10_000)
      world.say({ type: 'ping', payload: new Uint8Array(8) }, 0)
    }
    expect([world.kept, provider.status, provider.carrier]).toEqual([null, 'connected', 'websocket'])
    expect(world.nDiscoveries).toBe(error === undefined ? 2 : 11)
    provider.destroy()
  })

  it('tries WebTransport again later, beside the session that stands, and moves without an interruption', async () => {
    quic.automatic = false
    const provider = world.provider()
    const statuses: string[] = []
    const carriers: unknown[] = []
    await advance(2_000)
    await world.open()
    provider.on('status', ({ status }) => statuses.push(status))
    provider.on('carrier', ({ carrier }) => carriers.push(carrier))
    const heartbeat = async (ms: number): Promise<void> => {
      for (let left = ms; left > 0; left -= 10_000) {
        await advance(10_000)
        if (tcp.links[0]?.closed === false) world.say({ type: 'ping', payload: new Uint8Array(8) }, 0, tcp.links[0])
      }
    }
    await heartbeat(4 * MINUTE)
    expect(quic.nWaiting).toBe(1)
    await heartbeat(1 * MINUTE)
    // Still blocked: given up without harm, and tried again after twice the time.
    expect([quic.nWaiting, statuses]).toEqual([2, []])
    await heartbeat(9 * MINUTE)
    expect(quic.nWaiting).toBe(2)
    for (let i = 0; i < 18 && quic.nWaiting === 2; i += 1) await heartbeat(10_000)
    expect(quic.nWaiting).toBe(3)
    // The dials that were called off are answered to nobody.
    for (let i = 0; i < 3; i += 1) quic.accept()
    await settle()
    const [link] = quic.links
    if (link === undefined) throw new Error('nothing was dialled')
    await world.welcome(25_000, link)
    await settle()
    world.say(opened(), 1, link)
    await settle()
    expect([provider.carrier, tcp.links[0]?.closed, statuses, carriers]).toEqual(['webtransport', true, [], ['webtransport']])
    provider.destroy()
    expect(vi.getTimerCount()).toBe(0)
  })
})
