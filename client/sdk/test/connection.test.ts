import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import * as Y from 'yjs'
import { CLIENT_VERSION } from '../src/connection.js'
import { DiscoveryRefusedError } from '../src/discovery.js'
import manifest from '../package.json' with { type: 'json' }
import { advance, opened, refusal, SESSION, settle, World } from './support/harness.js'

let world: World

beforeEach(() => {
  vi.useFakeTimers()
  world = new World()
})

afterEach(() => {
  vi.useRealTimers()
})

describe('heartbeat', () => {
  it('answers PING in the message handler, without any timer', async () => {
    const provider = world.provider()
    await world.open()
    const payload = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8])
    world.say({ type: 'ping', payload }, 0)
    expect(world.heardOf('pong')).toMatchObject([{ channel: 0, payload }])
    provider.destroy()
  })

  it('is dead after the silence that WELCOME names, though the port answers', async () => {
    const provider = world.provider()
    await world.open()
    await advance(24_000)
    expect(provider.status).toBe('connected')
    await advance(7_000)
    expect(provider.status).not.toBe('connected')
    expect(world.nLinks).toBe(2)
    provider.destroy()
  })

  it('leaves a silent session within seconds when nobody listens on the port any more', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    await world.open()
    world.say({ type: 'seen', sequence: 1 })
    world.health = 'down'
    doc.getText('t').insert(0, 'a')
    await advance(1_600)
    expect(provider.status).toBe('disconnected')
    provider.destroy()
  })

  it('does not hold slowness against a server that only fails to answer in time', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    await world.open()
    world.health = 'silent'
    doc.getText('t').insert(0, 'a')
    await advance(20_000)
    expect([provider.status, provider.saveState]).toEqual(['connected', 'saving'])
    provider.destroy()
  })

  it('after a sleep, waits for the messages that slept too', async () => {
    const provider = world.provider()
    await world.open()
    // The clock jumps: one late timer, as after a suspended laptop.
    vi.setSystemTime(Date.now() + 3_600_000)
    const real = performance.now.bind(performance)
    const jump = vi.spyOn(performance, 'now').mockImplementation(() => real() + 3_600_000)
    await advance(1_000)
    expect(provider.status).toBe('connected')
    world.say({ type: 'ping', payload: new Uint8Array(8) }, 0)
    await advance(6_000)
    expect(provider.status).toBe('connected')
    jump.mockRestore()
    provider.destroy()
  })

  it('measures the round trip', async () => {
    const provider = world.provider()
    const measured: number[] = []
    provider.on('rtt', (ms) => measured.push(ms))
    await world.open()
    expect(provider.rtt).toBeNull()
    await advance(1_000)
    const [ping] = world.heardOf('ping')
    await advance(40)
    if (ping !== undefined) world.say({ type: 'pong', payload: ping.payload }, 0)
    expect(measured).toEqual([40])
    expect(provider.rtt).toBe(40)
    provider.destroy()
  })
})

describe('coming back', () => {
  it('probes the lost server often and dials within half a second of its return', async () => {
    const provider = world.provider()
    await world.open()
    world.health = 'down'
    await world.lose()
    await advance(4_000)
    expect(world.nProbes).toBeGreaterThanOrEqual(8)
    expect(world.nLinks).toBe(1)
    world.health = 'up'
    await advance(500)
    expect(world.nLinks).toBe(2)
    await world.open()
    expect(provider.status).toBe('connected')
    provider.destroy()
  })

  it('names its previous session, so that presence is handed over', async () => {
    const provider = world.provider()
    await world.open()
    await world.lose()
    await advance(1_000)
    expect(world.heardOf('hello')).toMatchObject([{ previousSessionId: SESSION }])
    provider.destroy()
  })

  it('backs off when dials fail, up to a cap, and forgets that after a success', async () => {
    world.discoveryError = new Error('no network')
    const provider = world.provider()
    await advance(120_000)
    const n = world.nDiscoveries
    // Half of the cap is the mean with this randomness: 15 s / 2.
    expect(n).toBeGreaterThan(10)
    expect(n).toBeLessThan(30)
    await advance(75_000)
    expect(world.nDiscoveries - n).toBeLessThanOrEqual(11)
    world.discoveryError = undefined
    for (let i = 0; i < 16 && world.nLinks === 0; i += 1) await advance(1_000)
    await world.open()
    expect(provider.status).toBe('connected')
    provider.destroy()
  })

  it('does not spin when sessions are established and lost at once', async () => {
    const provider = world.provider()
    for (let i = 0; i < 60; i += 1) {
      await advance(1_000)
      if (world.network.links.at(-1)?.closed === false) {
        await world.welcome()
        await world.lose()
      }
    }
    expect(world.nLinks).toBeLessThan(16)
    provider.destroy()
  })

  it('gives up on a server that takes the link and never greets', async () => {
    const provider = world.provider()
    await advance(11_000)
    expect(world.network.links[0]?.closed).toBe(true)
    expect(world.nLinks).toBeGreaterThan(1)
    provider.destroy()
  })

  it('stays away as long as a retryable ERROR asks', async () => {
    const provider = world.provider()
    await world.open()
    world.say({ type: 'error', ...refusal('overloaded', 8_000) }, 0)
    await advance(7_900)
    expect(world.nLinks).toBe(1)
    await advance(1_200)
    expect(world.nLinks).toBe(2)
    provider.destroy()
  })
})

describe('a page that is left', () => {
  it('ends the session in order, and comes back only when it is shown again', async () => {
    const window = new EventTarget()
    vi.stubGlobal('window', window)
    const provider = world.provider()
    await world.open()
    window.dispatchEvent(new Event('pagehide'))
    expect(world.link.closed).toBe(true)
    await advance(600_000)
    expect(world.nLinks).toBe(1)
    window.dispatchEvent(new Event('pageshow'))
    await advance(1_000)
    await world.open()
    expect([world.nLinks, provider.status]).toEqual([2, 'connected'])
    window.dispatchEvent(new Event('pagehide'))
    await advance(1_000)
    provider.destroy()
    await settle()
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('terminal conditions', () => {
  it.each(['unsupported_version', 'auth_required', 'revoked', 'invalid_message'] as const)('never loops on %s', async (name) => {
    const provider = world.provider()
    const closed: unknown[] = []
    provider.on('closed', (failure) => closed.push(failure))
    await settle()
    world.say({ type: 'error', ...refusal(name) }, 0)
    await settle()
    expect(closed).toMatchObject([{ code: name, retryable: false }])
    expect(provider.status).toBe(name === 'auth_required' || name === 'revoked' ? 'denied' : 'closed')
    await advance(600_000)
    expect(world.nLinks).toBe(1)
    expect(vi.getTimerCount()).toBe(1)
    provider.destroy()
    expect(vi.getTimerCount()).toBe(0)
  })

  it('never loops on a final WebSocket close code', async () => {
    const provider = world.provider()
    await world.open()
    world.link.drop(4410, 'revoked')
    await advance(600_000)
    expect([world.nLinks, provider.status]).toEqual([1, 'denied'])
    provider.destroy()
  })

  it('never loops on a refused discovery', async () => {
    world.discoveryError = new DiscoveryRefusedError(403)
    const provider = world.provider()
    await advance(600_000)
    expect([world.nDiscoveries, provider.status]).toEqual([1, 'denied'])
    provider.destroy()
  })

  it('a person may try again', async () => {
    const provider = world.provider()
    await settle()
    world.say({ type: 'error', ...refusal('auth_required') }, 0)
    await settle()
    provider.connect()
    await world.open()
    expect(provider.status).toBe('connected')
    provider.destroy()
  })
})

describe('sharing', () => {
  it('carries many documents on one link, each on its own channel', async () => {
    const one = world.provider(new Y.Doc(), {}, 'one')
    const two = world.provider(new Y.Doc(), {}, 'two')
    await world.welcome()
    expect(world.heardOf('open').map(({ channel, document }) => [channel, document])).toEqual([
      [1, 'one'],
      [2, 'two'],
    ])
    world.say(opened(), 1)
    world.say(opened(), 2)
    const three = world.provider(new Y.Doc(), {}, 'three')
    expect(world.heardOf('open')).toMatchObject([{ channel: 3, document: 'three' }])
    expect(world.nLinks).toBe(1)
    one.disconnect()
    three.destroy()
    expect(world.heard()).toMatchObject([
      { type: 'close', channel: 1 },
      { type: 'finish', channel: 1 },
      { type: 'close', channel: 3 },
      { type: 'finish', channel: 3 },
    ])
    expect([one.status, two.status]).toEqual(['disconnected', 'connected'])
    two.destroy()
    await settle()
    expect(world.heard().at(-1)).toEqual({ type: 'linkClosed', channel: 0 })
    one.destroy()
  })

  it('one refused document leaves the others alone', async () => {
    const one = world.provider(new Y.Doc(), {}, 'one')
    const two = world.provider(new Y.Doc(), {}, 'two')
    await world.welcome()
    world.say(opened(), 2)
    world.say({ type: 'closed', ...refusal('not_found') }, 1)
    expect([one.status, two.status]).toEqual(['denied', 'connected'])
    one.destroy()
    two.destroy()
  })

  it('keeps edits made while disconnected and sends them on the next connect', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    await world.open()
    provider.disconnect()
    doc.getText('t').insert(0, 'a')
    await advance(60_000)
    expect([world.nLinks, provider.pending, provider.saveState]).toEqual([1, 1, 'local'])
    provider.connect()
    const sent = await world.open()
    expect([world.nLinks, sent[0]?.type]).toEqual([2, 'sync'])
    provider.destroy()
  })
})

describe('life cycle', () => {
  it('leaves no timer, in whatever state it is destroyed', async () => {
    const states: (() => Promise<void>)[] = [
      () => Promise.resolve(),
      settle,
      () => world.welcome(),
      async () => {
        await world.open()
      },
      async () => {
        await world.open()
        await world.lose()
        world.health = 'down'
        await advance(2_000)
      },
      async () => {
        await world.open()
        world.say({ type: 'closed', ...refusal('overloaded', 60_000) })
      },
      async () => {
        await world.open()
        world.say({ type: 'goaway', reason: '', reconnectMinMs: 60_000, reconnectMaxMs: 60_000 }, 0)
      },
      async () => {
        await world.welcome()
        world.discoveryError = new Error('no network')
        await world.lose()
        await advance(30_000)
      },
    ]
    for (const [i, reach] of states.entries()) {
      world = new World()
      const provider = world.provider()
      await reach()
      provider.destroy()
      await settle()
      expect([i, vi.getTimerCount()]).toEqual([i, 0])
    }
  })

  it('is idempotent: twice destroyed, connected twice, made and unmade in one breath', async () => {
    const provider = world.provider()
    provider.connect()
    provider.destroy()
    provider.destroy()
    provider.connect()
    const next = world.provider()
    await world.open()
    expect([world.nLinks, next.status, provider.status]).toEqual([1, 'connected', 'disconnected'])
    next.destroy()
  })

  it('goes with its document', async () => {
    const provider = world.provider()
    await world.open()
    provider.doc.destroy()
    await settle()
    expect(world.link.closed).toBe(true)
    expect(vi.getTimerCount()).toBe(0)
  })

  it('promises that cannot come true any more reject on destroy', async () => {
    const provider = world.provider()
    provider.doc.getText('t').insert(0, 'a')
    const outcomes = Promise.allSettled([provider.whenSynced, provider.whenSaved])
    provider.destroy()
    expect((await outcomes).map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  })

  it('reports its own version', () => {
    expect(CLIENT_VERSION).toBe(manifest.version)
  })
})
