import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { applyAwarenessUpdate, Awareness, encodeAwarenessUpdate } from 'y-protocols/awareness'
import * as Y from 'yjs'
import type { Heard } from './support/harness.js'
import { advance, opened, World } from './support/harness.js'

let world: World

beforeEach(() => {
  vi.useFakeTimers()
  world = new World()
})

afterEach(() => {
  vi.useRealTimers()
})

/** What was sent as presence, by path. */
function presence(heard: readonly Heard[]): { path: string; update: Uint8Array }[] {
  return heard.flatMap((message) => {
    if (message.type === 'datagram') return [{ path: 'datagram', update: message.body }]
    return message.type === 'presence' ? [{ path: 'stream', update: message.update }] : []
  })
}

/** Somebody else's awareness, and its update. */
function somebody(state: Record<string, unknown>): { id: number; update: Uint8Array } {
  const awareness = new Awareness(new Y.Doc())
  awareness.setLocalState(state)
  const update = encodeAwarenessUpdate(awareness, [awareness.clientID])
  awareness.destroy()
  return { id: awareness.clientID, update }
}

/** Reads updates as another client would. */
function read(updates: readonly { update: Uint8Array }[]): Map<number, unknown> {
  const awareness = new Awareness(new Y.Doc())
  awareness.setLocalState(null)
  for (const { update } of updates) applyAwarenessUpdate(awareness, update, 'test')
  awareness.destroy()
  return awareness.getStates()
}

describe('presence', () => {
  it('shows who is there and then itself, before anything else is sent', async () => {
    const provider = world.provider()
    provider.awareness.setLocalStateField('user', { name: 'Ada' })
    const other = somebody({ user: { name: 'Bo' } })
    await world.welcome()
    world.heardAll()
    world.say(opened({ awareness: other.update }))
    expect(provider.awareness.getStates().get(other.id)).toEqual({ user: { name: 'Bo' } })
    const sent = presence(world.heardAll())
    expect(sent.map(({ path }) => path)).toEqual(['datagram'])
    expect(read(sent)).toEqual(new Map([[provider.awareness.clientID, { user: { name: 'Ada' } }]]))
    provider.destroy()
  })

  it('coalesces: a fast cursor costs at most one message in 60 ms, and the last place arrives', async () => {
    const provider = world.provider()
    await world.open()
    await advance(1_000)
    world.heardAll()
    for (let i = 0; i < 100; i += 1) {
      provider.awareness.setLocalStateField('cursor', i)
      await advance(5)
    }
    await advance(60)
    const sent = presence(world.heardAll())
    expect(sent.length).toBeLessThanOrEqual(10)
    expect(read(sent).get(provider.awareness.clientID)).toMatchObject({ cursor: 99 })
    provider.destroy()
  })

  it('[PR8] repeats the last word once on the stream, as it is: the server may have it or not', async () => {
    const provider = world.provider()
    await world.open()
    await advance(2_000)
    world.heardAll()
    provider.awareness.setLocalStateField('cursor', 1)
    const clock = provider.awareness.meta.get(provider.awareness.clientID)?.clock
    await advance(10_000)
    const sent = presence(world.heardAll())
    expect(sent.map(({ path }) => path)).toEqual(['datagram', 'stream'])
    expect(sent[1]?.update).toEqual(sent[0]?.update)
    expect(provider.awareness.meta.get(provider.awareness.clientID)?.clock).toBe(clock)
    provider.destroy()
  })

  it('[PR8] moves by datagram alone at 20 Hz; where all of them are lost, the last place is known within half a second', async () => {
    const provider = world.provider()
    await world.open()
    await advance(2_000)
    world.heardAll()
    for (let i = 0; i < 100; i += 1) {
      provider.awareness.setLocalStateField('cursor', i)
      await advance(50)
    }
    const moving = presence(world.heardAll()).map(({ path }) => path)
    expect(moving.length).toBeGreaterThan(70)
    expect(moving).not.toContain('stream')
    await advance(500)
    const arrived = presence(world.heardAll()).filter(({ path }) => path === 'stream')
    expect(arrived).toHaveLength(1)
    expect(read(arrived).get(provider.awareness.clientID)).toMatchObject({ cursor: 99 })
    provider.destroy()
  })

  it('[PR8] takes a repeat for nothing new, and a late datagram does not bring back who is gone', async () => {
    const provider = world.provider()
    await world.open()
    const bo = new Awareness(new Y.Doc())
    bo.setLocalState({ user: 'Bo' })
    const here = encodeAwarenessUpdate(bo, [bo.clientID])
    world.link.deliverDatagram(1, here)
    let nChanges = 0
    provider.awareness.on('update', () => (nChanges += 1))
    world.say({ type: 'presence', update: here })
    expect([nChanges, provider.awareness.getStates().has(bo.clientID)]).toEqual([0, true])
    // The server clears who left at the clock that it relayed last, which another reader may have missed.
    const { clock } = bo.meta.get(bo.clientID) ?? { clock: 0 }
    bo.setLocalStateField('user', 'missed')
    const missed = encodeAwarenessUpdate(bo, [bo.clientID])
    bo.states.delete(bo.clientID)
    world.say({ type: 'presence', update: encodeAwarenessUpdate(bo, [bo.clientID]) })
    expect([nChanges, provider.awareness.getStates().has(bo.clientID)]).toEqual([1, false])
    world.link.deliverDatagram(1, missed)
    expect([nChanges, provider.awareness.getStates().has(bo.clientID)]).toEqual([1, false])
    expect(bo.meta.get(bo.clientID)?.clock).toBe(clock + 1)
    bo.destroy()
    provider.destroy()
  })

  it('takes the stream for what no datagram holds, and where there are none', async () => {
    const provider = world.provider()
    await world.open()
    await advance(1_000)
    world.heardAll()
    provider.awareness.setLocalStateField('note', 'x'.repeat(1_200))
    expect(presence(world.heardAll()).map(({ path }) => path)).toEqual(['stream'])
    world.link.datagramBytesMax = 0
    provider.awareness.setLocalStateField('note', 'y')
    await advance(1_000)
    expect(presence(world.heardAll()).map(({ path }) => path)).toEqual(['stream'])
    provider.destroy()
  })

  it('never sends what it knows of others, nor echoes what it was told', async () => {
    const provider = world.provider()
    await world.open()
    await advance(1_000)
    world.heardAll()
    const other = somebody({ user: { name: 'Bo' } })
    world.link.deliverDatagram(1, other.update)
    world.say({ type: 'presence', update: somebody({}).update })
    await advance(14_000)
    const ids = [...read(presence(world.heardAll())).keys()]
    expect(ids.filter((id) => id !== provider.awareness.clientID)).toEqual([])
    expect(provider.awareness.getStates().size).toBe(3)
    provider.destroy()
  })

  it('forgets the others when the connection is lost, and sees them again at once on return', async () => {
    const provider = world.provider()
    const other = somebody({ user: { name: 'Bo' } })
    await world.open({ awareness: other.update })
    await world.lose()
    expect([...provider.awareness.getStates().keys()]).toEqual([provider.awareness.clientID])
    await advance(1_000)
    // The same clock as before: nothing happened to the other while we were away.
    await world.open({ awareness: other.update })
    expect(provider.awareness.getStates().has(other.id)).toBe(true)
    provider.destroy()
  })

  it('comes back with a higher clock, so that those who saw it go see it return', async () => {
    const provider = world.provider()
    const own = provider.awareness.clientID
    const clock = (): number => provider.awareness.meta.get(own)?.clock ?? -1
    await world.open()
    const before = clock()
    await world.lose()
    await advance(1_000)
    await world.welcome()
    world.heardAll()
    world.say(opened())
    expect(clock()).toBeGreaterThan(before)
    expect(read(presence(world.heardAll())).has(own)).toBe(true)
    provider.destroy()
  })

  it('contradicts whoever says that it is gone', async () => {
    const provider = world.provider()
    const own = provider.awareness.clientID
    await world.open()
    await advance(1_000)
    world.heardAll()
    const clock = provider.awareness.meta.get(own)?.clock ?? 0
    const gone = new Awareness(new Y.Doc())
    gone.states.set(own, {})
    gone.meta.set(own, { clock: clock + 1, lastUpdated: 0 })
    gone.states.delete(own)
    world.say({ type: 'presence', update: encodeAwarenessUpdate(gone, [own]) })
    gone.destroy()
    await advance(100)
    expect(read(presence(world.heardAll())).has(own)).toBe(true)
    provider.destroy()
  })

  it('renews itself from the message handler, where a hidden tab has no timers to speak of', async () => {
    const provider = world.provider()
    await world.open()
    await advance(1_000)
    world.heardAll()
    // Time passes without a single timer.
    vi.setSystemTime(Date.now() + 16_000)
    world.say({ type: 'ping', payload: new Uint8Array(8) }, 0)
    expect(presence(world.heardAll())).toHaveLength(1)
    provider.destroy()
  })

  it('[PR8] an application that hides itself is hidden at once and reliably', async () => {
    const provider = world.provider()
    await world.open()
    await advance(1_000)
    world.heardAll()
    // Also in the middle of a movement, of which nothing follows then.
    for (const cursor of [1, 2]) provider.awareness.setLocalStateField('cursor', cursor)
    provider.awareness.setLocalState(null)
    const sent = presence(world.heardAll())
    expect(sent.map(({ path }) => path)).toEqual(['datagram', 'stream'])
    expect(read(sent).has(provider.awareness.clientID)).toBe(false)
    await advance(2_000)
    expect(presence(world.heardAll())).toEqual([])
    provider.destroy()
  })

  it('leaves an awareness that it was given alive', async () => {
    const doc = new Y.Doc()
    const awareness = new Awareness(doc)
    awareness.setLocalState({ user: 'kept' })
    const provider = world.provider(doc, { awareness })
    await world.open()
    provider.destroy()
    expect(awareness.getLocalState()).toEqual({ user: 'kept' })
    awareness.destroy()
  })
})
