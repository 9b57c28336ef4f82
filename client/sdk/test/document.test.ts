import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import * as Y from 'yjs'
import { Position } from '../src/protocol/index.js'
import type { SavedEvent } from '../src/provider.js'
import { advance, EMPTY_VECTOR, EPOCH, NOTHING, OTHER_EPOCH, opened, refusal, settle, World, written } from './support/harness.js'

let world: World

/** A position of origins that are all of one byte, with their sequences. */
function at(...entries: [origin: number, sequence: number][]): Position {
  return Position.decode(new Uint8Array([entries.length, ...entries.flatMap(([origin, sequence]) => [...new Array<number>(8).fill(origin), sequence])]))
}

beforeEach(() => {
  vi.useFakeTimers()
  world = new World()
})

afterEach(() => {
  vi.useRealTimers()
})

describe('opening', () => {
  it('greets, opens with what it has, and is in step after one answer', async () => {
    const provider = world.provider()
    const statuses: string[] = [provider.status]
    provider.on('status', ({ status }) => statuses.push(status))
    const syncs: boolean[] = []
    provider.on('sync', (synced) => syncs.push(synced))
    await settle()
    expect(world.heard()).toMatchObject([{ type: 'hello', channel: 0, versions: [1], previousSessionId: undefined }])
    await world.welcome()
    expect(world.heard()).toMatchObject([
      { type: 'open', channel: 1, document: 'notes', epoch: undefined, position: undefined, access: 'write', clientId: provider.doc.clientID },
    ])
    const other = written('hello')
    world.say(opened({ update: other.update, stateVector: other.stateVector }))
    await provider.whenSynced
    expect(provider.doc.getText('t').toString()).toBe('hello')
    expect([provider.synced, provider.wsconnected, provider.carrier]).toEqual([true, true, 'memory'])
    expect(statuses).toEqual(['connecting', 'connected'])
    expect(syncs).toEqual([true])
    provider.destroy()
  })

  it('sends what the server lacks as message 1, and later edits after it', async () => {
    const doc = new Y.Doc()
    doc.getText('t').insert(0, 'mine')
    const provider = world.provider(doc)
    const sent = await world.open()
    expect(sent).toMatchObject([{ type: 'sync', sequence: 1, channel: 1 }])
    doc.getText('t').insert(4, '!')
    const [edit] = world.heardOf('update')
    expect(edit?.sequence).toBe(2)
    const server = new Y.Doc()
    Y.applyUpdate(server, sent[0]?.type === 'sync' ? sent[0].update : EMPTY_VECTOR)
    if (edit !== undefined) Y.applyUpdate(server, edit.update)
    expect(server.getText('t').toString()).toBe('mine!')
    provider.destroy()
  })

  it('puts what an editor writes in answer to the missing update into the diff, not before it', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    doc.getText('t').observe((_, transaction) => {
      if (transaction.origin === provider) doc.getText('t').insert(0, '>')
    })
    const other = written('x')
    const sent = await world.open({ update: other.update, stateVector: other.stateVector })
    expect(sent.map(({ type }) => type)).toEqual(['sync'])
    expect(provider.pending).toBe(1)
    world.say({ type: 'durable', sequence: 1 })
    expect(provider.pending).toBe(0)
    provider.destroy()
  })

  it('sends an empty diff when the server has everything, though there are old deletions', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    await world.open()
    doc.getText('t').insert(0, 'abc')
    doc.getText('t').delete(1, 1)
    world.say({ type: 'durable', sequence: 3 })
    await world.lose()
    await advance(1000)
    const sent = await world.open({ stateVector: Y.encodeStateVector(doc) })
    expect(sent).toMatchObject([{ type: 'sync', sequence: 1, update: new Uint8Array([0, 0]) }])
    expect(provider.saveState).toBe('saved')
    provider.destroy()
  })

  it('[PO1] hands back epoch and position on return: OPENED sets the position, updates move it', async () => {
    const provider = world.provider()
    await world.open({ position: at([1, 5], [2, 3]) })
    world.say({ type: 'update', position: at([2, 2], [3, 9]), update: written('y').update })
    await world.lose()
    await advance(1000)
    await world.welcome()
    const [open] = world.heardOf('open')
    expect(open?.epoch).toEqual(EPOCH)
    expect(open?.position).toEqual(at([1, 5], [2, 3], [3, 9]).encode())
    provider.destroy()
  })

  it.each([
    ['with something missing', written('z').update],
    ['with nothing missing', NOTHING],
  ])('[PO1] forgets what the server forgot: OPENED %s replaces the position, and every later resume is by it', async (_, update) => {
    const provider = world.provider()
    await world.open({ position: at([1, 5], [7, 1]) })
    await world.lose()
    await advance(1000)
    // The entry 7 is a generation that is not known any more: the answer is the whole difference, once.
    await world.open({ position: at([1, 4], [8, 1]), update })
    world.say({ type: 'update', position: at([1, 6]), update: written('y').update })
    await world.lose()
    await advance(1000)
    await world.welcome()
    expect(world.heardOf('open')[0]?.position).toEqual(at([1, 6], [8, 1]).encode())
    provider.destroy()
  })

  it('[PO1] no position is ahead of the copy: updates before OPENED, and an OPENED that cannot be read, leave it where it was', async () => {
    const provider = world.provider()
    await world.open({ position: at([1, 5]) })
    await world.lose()
    await advance(1000)
    await world.welcome()
    world.heardAll()
    world.say({ type: 'update', position: at([1, 9]), update: written('early').update })
    world.say(opened({ position: at([1, 8]), update: new Uint8Array([9, 9, 9]) }))
    expect([provider.status, provider.doc.getText('t').toString()]).toEqual(['disconnected', ''])
    await advance(1000)
    expect(world.heardOf('open')[0]?.position).toEqual(at([1, 5]).encode())
    provider.destroy()
  })

  it('sends nothing that another provider of the server brought', async () => {
    const provider = world.provider()
    await world.open()
    world.say({ type: 'update', position: new Position(), update: written('theirs').update })
    expect(world.heard()).toEqual([])
    expect([provider.pending, provider.doc.getText('t').toString()]).toEqual([0, 'theirs'])
    provider.destroy()
  })
})

describe('saved', () => {
  it('goes through local, saving and saved, and says so once each', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    const events: SavedEvent[] = []
    provider.on('saved', (event) => events.push(event))
    doc.getText('t').insert(0, 'a')
    expect(provider.saveState).toBe('local')
    await world.open()
    expect(provider.saveState).toBe('saving')
    world.say({ type: 'seen', sequence: 1 })
    expect(provider.saveState).toBe('saving')
    world.say({ type: 'durable', sequence: 1 })
    expect(events).toEqual([
      { saved: false, pending: 1, state: 'local' },
      { saved: false, pending: 1, state: 'saving' },
      { saved: true, pending: 0, state: 'saved' },
    ])
    provider.destroy()
  })

  it('whenSaved waits for the edits made before it was asked, not for later ones', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    await world.open()
    doc.getText('t').insert(0, 'a')
    let saved = false
    const waiting = provider.whenSaved.then(() => {
      saved = true
    })
    doc.getText('t').insert(1, 'b')
    world.say({ type: 'durable', sequence: 1 })
    await settle()
    expect(saved).toBe(false)
    world.say({ type: 'durable', sequence: 2 })
    await waiting
    expect([saved, provider.pending]).toEqual([true, 1])
    provider.destroy()
  })

  it('content that was there before the provider counts as unsaved', () => {
    const doc = new Y.Doc()
    doc.getText('t').insert(0, 'kept elsewhere')
    const provider = world.provider(doc, { connect: false })
    expect([provider.pending, provider.saveState]).toEqual([1, 'local'])
    provider.destroy()
  })

  it('a lost connection makes unacknowledged edits local again; the next diff is what saves them', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    await world.open()
    doc.getText('t').insert(0, 'ab')
    world.say({ type: 'seen', sequence: 2 })
    await world.lose()
    expect([provider.pending, provider.saveState, provider.synced]).toEqual([1, 'local', false])
    doc.getText('t').insert(2, 'cd')
    expect(provider.pending).toBe(2)
    await advance(1000)
    // The server had seen the first edit; the diff holds the second, and speaks for both.
    const before = new Y.Doc()
    before.clientID = doc.clientID
    before.getText('t').insert(0, 'ab')
    const sent = await world.open({ stateVector: Y.encodeStateVector(before) })
    expect(sent).toMatchObject([{ type: 'sync', sequence: 1 }])
    expect([provider.pending, provider.saveState]).toEqual([2, 'saving'])
    world.say({ type: 'durable', sequence: 1 })
    expect([provider.pending, provider.saveState]).toEqual([0, 'saved'])
    provider.destroy()
  })

  it('an edit that was seen and then committed unseen is saved by the empty diff', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    await world.open()
    doc.getText('t').insert(0, 'ab')
    await world.lose()
    await advance(1000)
    await world.open({ stateVector: Y.encodeStateVector(doc) })
    expect(provider.pending).toBe(1)
    world.say({ type: 'durable', sequence: 1 })
    expect(provider.pending).toBe(0)
    provider.destroy()
  })

  it('takes saved back when the server comes back with less than it had called durable', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    await world.open()
    doc.getText('t').insert(0, 'ab')
    world.say({ type: 'durable', sequence: 2 })
    expect(provider.saveState).toBe('saved')
    await world.lose()
    await advance(1000)
    await world.open({ stateVector: EMPTY_VECTOR })
    expect(provider.saveState).toBe('saving')
    world.say({ type: 'durable', sequence: 1 })
    expect(provider.saveState).toBe('saved')
    provider.destroy()
  })

  it('doubles nothing over many reconnects', async () => {
    const server = new Y.Doc()
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    for (let round = 0; round < 6; round += 1) {
      doc.getText('t').insert(doc.getText('t').length, `${round}a`)
      const sent = await world.open({
        stateVector: Y.encodeStateVector(server),
        update: Y.encodeStateAsUpdate(server, Y.encodeStateVector(doc)),
      })
      doc.getText('t').insert(doc.getText('t').length, `${round}b`)
      for (const message of [...sent, ...world.heard()]) {
        // Every other round the server dies with what it had just been sent.
        if ((message.type === 'sync' || message.type === 'update') && round % 2 === 0) Y.applyUpdate(server, message.update)
      }
      server.getText('t').insert(0, '|')
      await world.lose()
      await advance(60_000)
    }
    const [last] = await world.open({
      stateVector: Y.encodeStateVector(server),
      update: Y.encodeStateAsUpdate(server, Y.encodeStateVector(doc)),
    })
    if (last?.type === 'sync') Y.applyUpdate(server, last.update)
    world.say({ type: 'durable', sequence: 1 })
    const text = doc.getText('t').toString()
    expect(text.replaceAll('|', '')).toBe('0a0b1a1b2a2b3a3b4a4b5a5b')
    expect(text.length - text.replaceAll('|', '').length).toBe(6)
    expect(server.getText('t').toString()).toBe(text)
    expect(provider.pending).toBe(0)
    provider.destroy()
  })
})

describe('refusals', () => {
  it('a retryable refusal holds edits back until the server asks', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    const rejections: unknown[] = []
    provider.on('rejected', (rejection) => rejections.push(rejection))
    await world.open()
    doc.getText('t').insert(0, 'a')
    world.say({ type: 'rejected', sequence: 2, code: 10, text: 'slow down', terminal: false })
    world.say({ type: 'durable', sequence: 2 })
    doc.getText('t').insert(1, 'b')
    expect(world.heardOf('update')).toHaveLength(1)
    expect([provider.pending, provider.saveState, provider.frozen]).toEqual([2, 'local', false])
    expect(rejections).toEqual([{ code: 'rate_limited', message: 'slow down', terminal: false }])
    world.say({ type: 'syncRequest', stateVector: EMPTY_VECTOR })
    const [whole] = world.heardOf('sync')
    expect(whole?.sequence).toBe(3)
    world.say({ type: 'durable', sequence: 3 })
    expect(provider.pending).toBe(0)
    provider.destroy()
  })

  it.each(['access', 'syncRequest'] as const)('what was refused for now goes out once, in one piece, at %s', async (type) => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    let nAsked = 0
    provider.on('sync-request', () => (nAsked += 1))
    await world.open()
    for (const letter of 'abc') doc.getText('t').insert(0, letter)
    world.heard()
    for (const sequence of [2, 3, 4]) world.say({ type: 'rejected', sequence, code: 4, text: 'read-only for now', terminal: false })
    world.say({ type: 'access', access: 'read' })
    world.say({ type: 'durable', sequence: 4 })
    doc.getText('t').insert(0, 'd')
    expect(world.heard()).toEqual([])
    expect([provider.pending, provider.saveState, provider.frozen]).toEqual([4, 'local', false])
    world.say(type === 'access' ? { type, access: 'write' } : { type, stateVector: EMPTY_VECTOR })
    if (type === 'syncRequest') {
      // Asked, but still not allowed.
      expect([world.heard(), nAsked]).toEqual([[], 1])
      world.say({ type: 'access', access: 'write' })
    }
    const sent = world.heard()
    expect(sent).toMatchObject([{ type: 'sync', sequence: 5 }])
    const copy = new Y.Doc()
    for (const message of sent) if (message.type === 'sync') Y.applyUpdate(copy, message.update)
    expect(copy.getText('t').toString()).toBe('dcba')
    world.say({ type: 'durable', sequence: 5 })
    expect([provider.pending, provider.saveState]).toEqual([0, 'saved'])
    provider.destroy()
  })

  it('a terminal refusal freezes the document: kept, exportable, never sent again, not even on return', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    await world.open()
    doc.getText('t').insert(0, 'huge')
    world.heard()
    world.say({ type: 'rejected', sequence: 2, code: 9, text: 'too large', terminal: true })
    doc.getText('t').insert(4, '!')
    expect(world.heard()).toEqual([])
    expect([provider.frozen, provider.pending, provider.saveState]).toEqual([true, 2, 'local'])
    await world.lose()
    await advance(1000)
    await world.welcome()
    expect(world.heardOf('open')).toMatchObject([{ access: 'read' }])
    world.say(opened({ access: 'read' }))
    expect(world.heard().filter(({ type }) => type === 'sync' || type === 'update')).toEqual([])
    const copy = new Y.Doc()
    Y.applyUpdate(copy, provider.exportLocal())
    expect(copy.getText('t').toString()).toBe('huge!')
    provider.destroy()
  })

  it('an edit that is too large for an update goes as a diff; one that is too large for that freezes', async () => {
    world.limits = [
      { key: 1, value: 1_000 },
      { key: 2, value: 5_000 },
    ]
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    const rejections: unknown[] = []
    provider.on('rejected', (rejection) => rejections.push(rejection))
    await world.open()
    doc.getText('t').insert(0, 'x'.repeat(2_000))
    doc.getText('t').insert(0, 'x')
    expect(world.heard()).toMatchObject([
      { type: 'sync', sequence: 2 },
      { type: 'update', sequence: 3 },
    ])
    world.say({ type: 'durable', sequence: 3 })
    expect(provider.pending).toBe(0)
    doc.getText('t').insert(0, 'x'.repeat(6_000))
    doc.getText('t').insert(0, 'x')
    expect(world.heard()).toEqual([])
    expect([provider.frozen, provider.pending, provider.saveState, provider.status]).toEqual([true, 2, 'local', 'connected'])
    expect(rejections).toMatchObject([{ code: 'too_large', terminal: true }])
    provider.destroy()
  })

  it('read access keeps edits here; write access sends them', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    expect(await world.open({ access: 'read' })).toEqual([])
    doc.getText('t').insert(0, 'a')
    expect(world.heard()).toEqual([])
    expect([provider.access, provider.saveState]).toEqual(['read', 'local'])
    world.say({ type: 'access', access: 'write' })
    expect(world.heardOf('sync')).toMatchObject([{ sequence: 1 }])
    expect(provider.saveState).toBe('saving')
    provider.destroy()
  })
})

describe('another history', () => {
  it('an epoch mismatch sets the local copy aside and stops', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    await world.open()
    doc.getText('t').insert(0, 'mine')
    await world.lose()
    await advance(1000)
    await world.welcome()
    let replaced = 0
    provider.on('replaced', () => (replaced += 1))
    world.heard()
    world.say({ type: 'closed', ...refusal('epoch_mismatch') })
    expect([provider.status, provider.pending, replaced]).toEqual(['replaced', 1, 1])
    provider.connect()
    await advance(120_000)
    expect([provider.status, doc.getText('t').toString()]).toEqual(['replaced', 'mine'])
    expect(world.nLinks).toBe(2)
    provider.destroy()
  })

  it('REPLACED in the middle of work: nothing of either side is merged or sent any more', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    await world.open()
    let nReplaced = 0
    provider.on('replaced', () => (nReplaced += 1))
    world.say({ type: 'replaced', epoch: OTHER_EPOCH })
    // CLOSED follows, and is nothing new.
    world.say({ type: 'closed', ...refusal('epoch_mismatch') })
    world.say({ type: 'update', position: new Position(), update: written('other history').update })
    doc.getText('t').insert(0, 'mine')
    expect([provider.status, nReplaced]).toEqual(['replaced', 1])
    const copy = new Y.Doc()
    Y.applyUpdate(copy, provider.exportLocal())
    expect(copy.getText('t').toString()).toBe('mine')
    expect(doc.getText('t').toString()).toBe('mine')
    expect(world.heard().filter(({ type }) => type === 'update' || type === 'sync')).toMatchObject([])
    provider.destroy()
  })
})

describe('closed channels', () => {
  it('a retryable CLOSED reopens on the same session after the asked wait', async () => {
    const provider = world.provider()
    await world.open()
    world.say({ type: 'closed', ...refusal('overloaded', 3_000) })
    expect(provider.status).toBe('disconnected')
    await advance(2_900)
    expect(world.heardOf('open')).toEqual([])
    await advance(200)
    expect(world.heardOf('open')).toMatchObject([{ channel: 2 }])
    world.say(opened(), 2)
    expect([provider.status, world.nLinks]).toEqual(['connected', 1])
    provider.destroy()
  })

  it('a channel that just ends reopens too', async () => {
    const provider = world.provider()
    await world.open()
    world.heard()
    world.link.endChannel(1)
    await advance(1_000)
    expect(world.heardOf('open')).toMatchObject([{ channel: 2 }])
    provider.destroy()
  })

  it('a terminal CLOSED is denied, says why, and never comes back by itself', async () => {
    const provider = world.provider()
    const closed: unknown[] = []
    provider.on('closed', (failure) => closed.push(failure))
    await world.welcome()
    world.say({ type: 'closed', ...refusal('permission_denied') })
    expect(provider.status).toBe('denied')
    expect(closed).toMatchObject([{ code: 'permission_denied', message: 'because', retryable: false }])
    await advance(600_000)
    expect([world.nLinks, provider.shouldConnect]).toEqual([1, false])
    provider.connect()
    await world.open()
    expect(provider.status).toBe('connected')
    provider.destroy()
  })
})

describe('faults of the application', () => {
  it('an observer that throws is reported, and neither stops the document nor reconnects it', async () => {
    const reported: unknown[] = []
    vi.stubGlobal('reportError', (cause: unknown) => reported.push(cause))
    const provider = world.provider()
    provider.doc.getText('t').observe(() => {
      throw new Error('mine')
    })
    provider.on('saved', () => {
      throw new Error('mine too')
    })
    const other = written('hello')
    await world.open({ update: other.update, stateVector: other.stateVector })
    world.say({ type: 'update', position: new Position(), update: written(' again').update })
    await advance(5_000)
    expect([provider.status, world.nLinks, provider.doc.getText('t').length]).toEqual(['connected', 1, 11])
    expect(reported.map(String)).toEqual(['Error: mine', 'Error: mine'])
    vi.unstubAllGlobals()
    provider.destroy()
  })

  it('a handler that throws when the connection is lost does not keep it from coming back', async () => {
    const reported: unknown[] = []
    vi.stubGlobal('reportError', (cause: unknown) => reported.push(cause))
    const provider = world.provider()
    provider.on('connection-close', () => {
      throw new Error('mine')
    })
    await world.open()
    await world.lose()
    await advance(1_000)
    await world.open()
    expect([provider.status, reported.length]).toEqual(['connected', 1])
    vi.unstubAllGlobals()
    provider.destroy()
  })

  it('an update that cannot be read costs the channel, not the page', async () => {
    const provider = world.provider()
    await world.open()
    world.heard()
    world.say({ type: 'update', position: new Position(), update: new Uint8Array([9, 9, 9]) })
    expect(provider.status).toBe('disconnected')
    await advance(1_000)
    expect(world.heardOf('open')).toHaveLength(1)
    provider.destroy()
  })

  it('may destroy the provider in the middle of anything', async () => {
    for (const at of ['observe', 'synced', 'awareness'] as const) {
      world = new World()
      const provider = world.provider()
      const destroy = (): void => {
        provider.destroy()
      }
      if (at === 'observe') provider.doc.getText('t').observe(destroy)
      if (at === 'synced') provider.on('synced', destroy)
      if (at === 'awareness') provider.awareness.on('change', destroy)
      const other = written('hello')
      await world.open({ update: other.update, stateVector: other.stateVector, awareness: new Uint8Array([1, 5, 1, 2, 0x7b, 0x7d]) })
      await settle()
      expect([at, vi.getTimerCount(), world.link.closed]).toEqual([at, 0, true])
    }
  })
})
