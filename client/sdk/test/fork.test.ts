import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import * as Y from 'yjs'
import { forkDocument } from '../src/fork.js'
import { Position } from '../src/protocol/index.js'
import { advance, opened, World, written } from './support/harness.js'

/** What the server holds of a document at this moment. */
function clocks(doc: Y.Doc): Map<number, number> {
  return Y.decodeStateVector(Y.encodeStateVector(doc))
}

/** A small seeded generator, so that a failure can be repeated. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

/** Some edit of any kind: text, formats, lists, maps, nested types, deletions. */
function edit(doc: Y.Doc, random: () => number): void {
  const text = doc.getText('t')
  const list = doc.getArray<unknown>('a')
  const map = doc.getMap<unknown>('m')
  const at = Math.floor(random() * (text.length + 1))
  const kind = Math.floor(random() * 8)
  if (kind <= 2) text.insert(at, 'abc€😀'.slice(0, 1 + Math.floor(random() * 3)))
  else if (kind === 3 && text.length > at) text.delete(at, Math.min(3, text.length - at))
  else if (kind === 4 && text.length > at) text.format(at, 1, { bold: random() > 0.5 })
  else if (kind === 5) list.insert(Math.floor(random() * (list.length + 1)), [random(), { deep: [1] }])
  else if (kind === 6) map.set(random() > 0.5 ? 'x' : 'y', new Y.Array())
  else {
    const nested = map.get('x')
    if (nested instanceof Y.Array) nested.push([random()])
    else if (list.length > 0) list.delete(0)
  }
}

function content(doc: Y.Doc): unknown {
  return [doc.getText('t').toDelta(), doc.getArray('a').toJSON(), doc.getMap('m').toJSON()]
}

describe('a fork', () => {
  it('holds the same content, shares what the server holds, and goes back into it with nothing twice', () => {
    for (let seed = 1; seed <= 60; seed += 1) {
      const random = seeded(seed)
      const doc = new Y.Doc({ gc: seed % 2 === 0 })
      const server = new Y.Doc({ gc: seed % 3 === 0 })
      for (let i = 0; i < 25; i += 1) edit(random() > 0.4 ? doc : server, random)
      Y.applyUpdate(server, Y.encodeStateAsUpdate(doc))
      Y.applyUpdate(doc, Y.encodeStateAsUpdate(server))
      const known = clocks(server)
      // Refused from here on: by this author and by one of an earlier session of the same copy.
      for (let i = 0; i < 15; i += 1) edit(doc, random)
      doc.clientID = 4_000 + seed
      for (let i = 0; i < 15; i += 1) edit(doc, random)

      const fork = forkDocument(doc, known)
      expect(content(fork), `seed ${seed}`).toEqual(content(doc))
      for (const [client, clock] of clocks(fork)) {
        if (known.has(client)) expect(clock).toBe(known.get(client))
      }
      expect(clocks(fork).has(4_000 + seed)).toBe(false)
      // What goes to the server is admissible there: no hole before it.
      Y.applyUpdate(server, Y.encodeStateAsUpdate(fork, Y.encodeStateVector(server)))
      expect(server.store.pendingStructs).toBeNull()
      expect(content(server), `seed ${seed}`).toEqual(content(doc))
      // And whoever writes on does so as a new author.
      const before = clocks(fork).get(fork.clientID) ?? 0
      fork.getText('t').insert(0, '!')
      expect(clocks(fork).get(fork.clientID)).toBe(before + 1)
    }
  })

  it('leaves the original as it is', () => {
    const doc = new Y.Doc()
    doc.getText('t').insert(0, 'mine')
    const before = Y.encodeStateAsUpdate(doc)
    forkDocument(doc, new Map([[doc.clientID, 2]])).getText('t').insert(0, 'x')
    expect(Y.encodeStateAsUpdate(doc)).toEqual(before)
  })

  it('does without pieces that still wait for others', () => {
    const other = written('first')
    const later = Y.encodeStateVector(other.doc)
    other.doc.getText('t').insert(5, ' second')
    const doc = new Y.Doc()
    doc.getText('mine').insert(0, 'mine')
    Y.applyUpdate(doc, Y.encodeStateAsUpdate(other.doc, later))
    const fork = forkDocument(doc, new Map())
    expect([fork.getText('mine').toString(), fork.store.pendingStructs]).toEqual(['mine', null])
  })
})

describe('a frozen document', () => {
  let world: World

  beforeEach(() => {
    vi.useFakeTimers()
    world = new World()
  })

  afterEach(() => {
    vi.useRealTimers()
  })

  it('forks exactly from what the server took before the refusal, acknowledged or not, and from what others wrote since', async () => {
    const doc = new Y.Doc()
    const server = new Y.Doc()
    const provider = world.provider(doc)
    await world.open()
    const text = doc.getText('t')
    text.insert(0, 'taken ')
    text.insert(6, 'too ')
    text.insert(10, 'refused ')
    text.insert(18, 'after')
    const sent = world.heardOf('update')
    for (const { update } of sent.slice(0, 2)) Y.applyUpdate(server, update)
    server.getText('t').insert(0, 'BO ')
    world.say({ type: 'update', position: new Position(), update: Y.encodeStateAsUpdate(server, Y.encodeStateVector(doc)) })
    world.say({ type: 'rejected', sequence: 4, code: 9, text: 'too large', terminal: true })
    server.getText('t').insert(0, 'CLEO ')
    world.say({ type: 'update', position: new Position(), update: Y.encodeStateAsUpdate(server, Y.encodeStateVector(doc)) })
    text.insert(text.length, ' and on')
    expect([provider.frozen, provider.pending]).toEqual([true, 5])

    const fork = provider.fork()
    expect(fork.getText('t').toString()).toBe('CLEO BO taken too refused after and on')
    Y.applyUpdate(server, Y.encodeStateAsUpdate(fork, Y.encodeStateVector(server)))
    expect(server.getText('t').toString()).toBe('CLEO BO taken too refused after and on')
    expect(server.store.pendingStructs).toBeNull()
    provider.destroy()
  })

  it('forks from what the server tells when it opens again', async () => {
    const doc = new Y.Doc()
    const provider = world.provider(doc)
    await world.open()
    doc.getText('t').insert(0, 'ab')
    world.say({ type: 'rejected', sequence: 2, code: 8, text: 'invalid', terminal: true })
    await world.lose()
    await advance(1_000)
    await world.open({ access: 'read', stateVector: new Uint8Array([0]) })
    const fork = provider.fork()
    expect([fork.getText('t').toString(), clocks(fork).has(doc.clientID)]).toEqual(['ab', false])
    // The fork is taken up by a provider like any other document.
    const copy = world.provider(fork, {}, 'notes-copy')
    world.heard()
    world.say(opened(), 2)
    expect(world.heardOf('sync')).toMatchObject([{ channel: 2, sequence: 1 }])
    copy.destroy()
    provider.destroy()
  })
})
