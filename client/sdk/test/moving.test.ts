import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { encodeAwarenessUpdate } from 'y-protocols/awareness'
import * as Y from 'yjs'
import type { MemoryLink } from '../src/link/memory.js'
import { Position } from '../src/protocol/index.js'
import type { SynclineProvider } from '../src/provider.js'
import { advance, OTHER_EPOCH, opened, refusal, SESSION, settle, World, written } from './support/harness.js'

let world: World
let doc: Y.Doc
let provider: SynclineProvider
let statuses: string[]

beforeEach(() => {
  vi.useFakeTimers()
  world = new World()
  doc = new Y.Doc()
  provider = world.provider(doc)
  statuses = []
})

afterEach(async () => {
  provider.destroy()
  await settle()
  expect(vi.getTimerCount()).toBe(0)
  vi.useRealTimers()
})

/** Opens the document, has the server say GOAWAY, and waits until the new session was dialled and greeted. */
async function goaway(fields: Parameters<typeof opened>[0] = {}): Promise<{ old: MemoryLink; next: MemoryLink }> {
  await world.open(fields)
  provider.on('status', ({ status }) => statuses.push(status))
  const old = world.link
  world.say({ type: 'goaway', reason: 'drain', reconnectMinMs: 2_000, reconnectMaxMs: 4_000 }, 0)
  await advance(3_000)
  expect(world.nLinks).toBe(2)
  return { old, next: world.link }
}

/** The new session is greeted, and the documents that are open go there too. */
async function greet(link: MemoryLink): Promise<void> {
  await world.welcome(25_000, link)
  await settle()
}

describe('GOAWAY', () => {
  it('is told, and the move comes in the window that was asked for', async () => {
    const told: unknown[] = []
    provider.on('goaway', (event) => told.push(event))
    await world.open()
    world.say({ type: 'goaway', reason: 'drain', reconnectMinMs: 2_000, reconnectMaxMs: 4_000 }, 0)
    expect(told).toEqual([{ reason: 'drain', reconnectMinMs: 2_000, reconnectMaxMs: 4_000 }])
    await advance(2_900)
    expect([provider.status, world.nLinks]).toEqual(['connected', 1])
    await advance(200)
    expect(world.nLinks).toBe(2)
  })

  it('makes before it breaks: the old session works on until every document is open on the new one', async () => {
    const { old, next } = await goaway()
    expect(world.heardOf('hello')).toMatchObject([{ previousSessionId: SESSION }])
    doc.getText('t').insert(0, 'a')
    await greet(next)
    expect(world.heardOf('open')).toMatchObject([{ channel: 1, clientId: doc.clientID }])
    doc.getText('t').insert(1, 'b')
    expect(world.heard(old).filter(({ type }) => type === 'update')).toHaveLength(2)
    expect(old.closed).toBe(false)

    world.say(opened())
    await settle()
    expect(world.heardOf('sync')).toMatchObject([{ sequence: 1 }])
    expect(old.takeSent().map(({ kind }) => kind).slice(-2)).toEqual(['finish', 'close'])
    expect([provider.pending, provider.saveState, provider.synced]).toEqual([2, 'saving', true])
    doc.getText('t').insert(2, 'c')
    expect(world.heardOf('update')).toMatchObject([{ sequence: 2 }])
    world.say({ type: 'durable', sequence: 2 })
    expect([provider.pending, statuses]).toEqual([0, []])
  })

  it('keeps the others present, and us present to them, all the way', async () => {
    const other = new Y.Doc()
    const elsewhere = world.provider(other, { connect: false }, 'elsewhere')
    const { awareness } = elsewhere
    awareness.setLocalState({ name: 'Bo' })
    const bo = encodeAwarenessUpdate(awareness, [other.clientID])
    provider.awareness.setLocalState({ name: 'Ada' })
    const { old, next } = await goaway({ awareness: bo })
    let nSeen = provider.awareness.getStates().size
    provider.awareness.on('change', () => (nSeen = Math.min(nSeen, provider.awareness.getStates().size)))
    old.takeSent()
    await greet(next)
    world.say(opened({ awareness: bo }))
    // Shown by the new session before the old one is left, and never taken back by it.
    expect(world.heardAll(next).some(({ type }) => type === 'presence')).toBe(true)
    expect(old.closed).toBe(false)
    await settle()
    expect(old.closed).toBe(true)
    expect(world.heardAll(old).filter(({ type }) => type === 'presence' || type === 'datagram')).toEqual([])
    provider.awareness.setLocalState({ name: 'Ada', at: 3 })
    await advance(100)
    expect(world.heardAll(next).some(({ type }) => type === 'datagram' || type === 'presence')).toBe(true)
    expect([nSeen, [...provider.awareness.getStates().keys()].sort()]).toEqual([2, [doc.clientID, other.clientID].sort()])
    elsewhere.destroy()
  })

  it('misses nothing that comes by either session meanwhile', async () => {
    const { old, next } = await goaway()
    await greet(next)
    const [one, two] = [written('one '), written('two ')]
    world.say({ type: 'update', position: new Position(), update: one.update }, 1, old)
    const second = world.provider(new Y.Doc(), {}, 'second')
    world.say(opened({ update: two.update, stateVector: two.stateVector }), 1, next)
    world.say({ type: 'update', position: new Position(), update: two.update }, 1, old)
    await settle()
    expect(doc.getText('t').toString().length).toBe(8)
    expect(second.status).toBe('connecting')
    second.destroy()
  })

  it('[PO1] takes over the position that the new session opened with, and what came on either since', async () => {
    const at = (...bytes: number[]): Position => Position.decode(new Uint8Array([1, ...new Array<number>(8).fill(bytes[0] ?? 0), bytes[1] ?? 0]))
    const { old, next } = await goaway({ position: at(1, 9) })
    await greet(next)
    world.say({ type: 'update', position: at(2, 4), update: written('before').update }, 1, old)
    world.say(opened({ position: at(3, 2) }), 1, next)
    world.say({ type: 'update', position: at(3, 3), update: written('since').update }, 1, next)
    await settle()
    expect(old.closed).toBe(true)
    await world.lose(next)
    await advance(1_000)
    await world.welcome()
    expect(world.heardOf('open')).toMatchObject([{ position: at(3, 3).encode() }])
  })

  it('waits for a slow document only so long, and opens it on the new session all the same', async () => {
    const slow = world.provider(new Y.Doc(), {}, 'slow')
    await world.welcome()
    world.say(opened(), 1)
    world.say(opened(), 2)
    const old = world.link
    world.say({ type: 'goaway', reason: '', reconnectMinMs: 0, reconnectMaxMs: 0 }, 0)
    await settle()
    const next = world.link
    await greet(next)
    world.say(opened(), 1, next)
    await advance(4_900)
    expect(old.closed).toBe(false)
    await advance(200)
    expect([old.closed, provider.status, slow.status]).toEqual([true, 'connected', 'connecting'])
    world.say(opened(), 2, next)
    expect([slow.status, world.heardOf('open').length]).toEqual(['connected', 2])
    slow.destroy()
  })

  it('stays where it is when no other session is to be had, tries again, and survives the end of the old one', async () => {
    await world.open()
    const old = world.link
    world.network.refuseAll(new Error('refused'))
    world.say({ type: 'goaway', reason: 'stopping', reconnectMinMs: 0, reconnectMaxMs: 100 }, 0)
    await advance(5_000)
    expect([provider.status, old.closed]).toEqual(['connected', false])
    doc.getText('t').insert(0, 'still here')
    expect(world.heardOf('update')).toHaveLength(1)
    world.network.refuseAll(undefined)
    world.health = 'down'
    await world.lose(old)
    expect(provider.status).toBe('disconnected')
    world.health = 'up'
    await advance(1_000)
    const sent = await world.open()
    expect([provider.status, sent[0]?.type]).toEqual(['connected', 'sync'])
  })

  it('does not move to a server that says GOAWAY too', async () => {
    const { old, next } = await goaway()
    await greet(next)
    world.say({ type: 'goaway', reason: 'me too', reconnectMinMs: 0, reconnectMaxMs: 0 }, 0, next)
    await settle()
    expect([next.closed, old.closed, provider.status]).toEqual([true, false, 'connected'])
  })

  it('takes presence back when the new session dies before the move', async () => {
    const slow = world.provider(new Y.Doc(), {}, 'slow')
    await world.welcome()
    world.say(opened(), 1)
    world.say(opened(), 2)
    const old = world.link
    world.say({ type: 'goaway', reason: '', reconnectMinMs: 0, reconnectMaxMs: 0 }, 0)
    await settle()
    const next = world.link
    await greet(next)
    world.say(opened(), 1, next)
    world.heardAll(old)
    await world.lose(next)
    expect(world.heardAll(old).some(({ type }) => type === 'presence')).toBe(true)
    doc.getText('t').insert(0, 'by the old one')
    expect(world.heard(old)).toMatchObject([{ type: 'update', channel: 1 }])
    expect([provider.status, slow.status, statuses]).toEqual(['connected', 'connected', []])
    slow.destroy()
  })

  it('an end of the old session in the middle of the move is an ordinary loss', async () => {
    const { old, next } = await goaway()
    await greet(next)
    await world.lose(old)
    expect([next.closed, provider.status]).toEqual([true, 'connecting'])
    expect(statuses).toEqual(['disconnected', 'connecting'])
    await settle()
    await world.open()
    expect([provider.status, world.nLinks]).toEqual(['connected', 3])
  })

  it('learns on the new session that the history was replaced, or that it is not welcome', async () => {
    const { next } = await goaway()
    await greet(next)
    world.say({ type: 'replaced', epoch: OTHER_EPOCH }, 1, next)
    expect(provider.status).toBe('replaced')
    world = new World()
    provider.destroy()
    provider = world.provider(doc)
    const again = await goaway()
    await greet(again.next)
    world.say({ type: 'closed', ...refusal('permission_denied') }, 1, again.next)
    expect(provider.status).toBe('denied')
  })

  it('may be destroyed at any point of it', async () => {
    for (const steps of [0, 1, 2]) {
      provider.destroy()
      world = new World()
      provider = world.provider(doc)
      const { old, next } = await goaway()
      if (steps > 0) await greet(next)
      if (steps > 1) world.say(opened(), 1, next)
      provider.destroy()
      await settle()
      expect([steps, old.closed, next.closed]).toEqual([steps, true, true])
    }
  })
})
