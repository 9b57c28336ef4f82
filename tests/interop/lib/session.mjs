// Plays a plan against a server: raw Yjs 13 clients over a link that misbehaves on command.

import WebSocket from 'ws'
import * as Y from 'yjs'
import { Awareness, applyAwarenessUpdate, encodeAwarenessUpdate } from 'y-protocols/awareness'
import * as wire from './wire.mjs'
import { edit } from './edit.mjs'
import { content, deleted, difference, normalise, roots, uncovered, vector } from './view.mjs'
import { Rng } from './rng.mjs'
import { turn, until } from './until.mjs'
import { REFERENCE } from './server.mjs'

const EMPTY = Uint8Array.of(0, 0)
const HEAL_MS = 15000
/** Live updates are refused above 1 MiB; a client that has more sends it as step 2. */
const LIVE_MAX = 1000000

/** A failure that no waiting mends. */
class Broken extends Error {
  fatal = true
}

function shuffled (list, seed) {
  const rng = new Rng(seed)
  const copy = list.slice()
  for (let i = copy.length - 1; i > 0; i--) {
    const j = rng.int(0, i)
    ;[copy[i], copy[j]] = [copy[j], copy[i]]
  }
  return copy
}

function sameVector (a, b) {
  return vector(a) === vector(b)
}

class Peer {
  constructor (session, name, { id, gc = true, state }) {
    this.session = session
    this.name = name
    this.gc = gc
    this.ws = null
    this.lineage = new Set()
    this.held = { in: false, out: false, tab: false }
    this.inbox = []
    this.outbox = []
    this.tabbox = []
    this.batch = null
    this.sent = []
    this.got = []
    this.inTab = false
    this.tabbed = false
    this.saved = EMPTY
    this.become(id, state)
  }

  become (id, state) {
    this.undo?.destroy()
    this.awareness?.destroy()
    const doc = new Y.Doc({ gc: this.gc })
    doc.clientID = id
    this.lineage.add(id)
    this.doc = doc
    const scope = roots(doc)
    if (state !== undefined) Y.applyUpdate(doc, state, 'load')
    this.undo = new Y.UndoManager(scope, { trackedOrigins: new Set(['me']), captureTimeout: 1e9 })
    this.awareness = new Awareness(doc)
    clearInterval(this.awareness._checkInterval)
    doc.on('update', (update, origin) => {
      if (origin === 'net' || origin === 'tab' || origin === 'load') return
      if (doc !== this.doc) return
      this.sent.push(update)
      if (this.sent.length > 300) this.sent.splice(0, 100)
      if (this.inTab) for (const peer of this.session.peers) if (peer !== this && peer.inTab) peer.tabbox.push(update)
      if (this.batch) this.batch.push(update)
      else this.update(update)
    })
  }

  update (update) {
    this.push(wire.sync(update.length > LIVE_MAX ? wire.STEP2 : wire.UPDATE, update))
  }

  // The link.

  get open () {
    return this.ws?.readyState === WebSocket.OPEN
  }

  dial () {
    if (this.ws) return
    const ws = new WebSocket(this.session.url)
    ws.binaryType = 'arraybuffer'
    this.ws = ws
    this.synced = false
    this.ending = false
    ws.on('open', () => {
      if (this.ws !== ws) return
      this.push(wire.sync(wire.STEP1, Y.encodeStateVector(this.doc)))
      this.push(wire.awareness(encodeAwarenessUpdate(this.awareness, [this.doc.clientID])))
    })
    ws.on('message', (data, binary) => {
      if (this.ws !== ws) return
      if (!binary) return this.session.fail(`${this.name} got a text message`)
      if (this.held.in) this.inbox.push(new Uint8Array(data))
      else this.handle(new Uint8Array(data))
    })
    ws.on('error', () => {})
    ws.on('close', (code, reason) => {
      if (this.ws !== ws) return
      const expected = this.ending || this.session.down || code === 1006
      if (!expected) this.session.fail(`${this.name} was closed by the server: ${code} ${reason}`)
      // A socket that breaks without a command is a fault, too, unless the server is being restarted.
      if (code === 1006 && !this.ending && !this.session.down) this.session.fail(`${this.name}: the socket broke off`)
      this.lost()
    })
  }

  lost () {
    this.ws = null
    this.inbox.length = 0
    this.outbox.length = 0
  }

  cut () {
    if (!this.ws) return
    const ws = this.ws
    this.lost()
    ws.terminate()
  }

  close () {
    if (!this.ws) return
    this.ending = true
    const ws = this.ws
    this.lost()
    ws.close()
  }

  push (message) {
    if (!this.open) return
    if (this.held.out) this.outbox.push(message)
    else this.ws.send(message)
  }

  step (dir, n) {
    if (dir !== 'out') for (const message of this.inbox.splice(0, n)) this.handle(message)
    if (dir !== 'in' && this.open) for (const message of this.outbox.splice(0, n)) this.ws.send(message)
  }

  free (dir) {
    if (dir !== 'out') this.held.in = false
    if (dir !== 'in') this.held.out = false
    this.step(dir, Infinity)
  }

  tabs () {
    if (this.held.tab) return
    for (const update of this.tabbox.splice(0)) Y.applyUpdate(this.doc, update, 'tab')
  }

  flush (mode, seed) {
    const updates = this.batch ?? []
    this.batch = null
    if (updates.length === 0) return
    const merge = list => { if (list.length > 0) this.update(Y.mergeUpdates(list)) }
    switch (mode) {
      case 'merge': return merge(updates)
      case 'shuffled': return merge(shuffled(updates, seed))
      case 'halves': {
        // Every other one: the first message has holes that the second fills.
        merge(updates.filter((_, i) => i % 2 === 1))
        return merge(updates.filter((_, i) => i % 2 === 0))
      }
      case 'reversed': return updates.toReversed().forEach(update => this.update(update))
      case 'first last': {
        merge([updates[0], updates[updates.length - 1]])
        return merge(updates)
      }
      case 'v2': return this.update(Y.convertUpdateFormatV2ToV1(Y.mergeUpdatesV2(updates.map(Y.convertUpdateFormatV1ToV2))))
      default: throw new Error(`a plan with an unknown flush ${mode}`)
    }
  }

  handle (frame) {
    try {
      const message = wire.read(frame)
      if (message.type === wire.AUTH) throw new Broken(`refused: ${message.reason}`)
      if (message.type === wire.QUERY_AWARENESS) this.push(wire.awareness(encodeAwarenessUpdate(this.awareness, [...this.awareness.getStates().keys()])))
      else if (message.type === wire.AWARENESS) applyAwarenessUpdate(this.awareness, message.bytes, 'net')
      else if (message.kind === wire.STEP1) this.push(wire.sync(wire.STEP2, Y.encodeStateAsUpdate(this.doc, message.bytes)))
      else this.receive(message)
    } catch (error) {
      this.session.fail(`${this.name} got a message that it cannot take: ${error.stack}\nframe ${Buffer.from(frame.slice(0, 300)).toString('hex')}`)
    }
  }

  receive ({ kind, bytes }) {
    this.got.push(bytes)
    if (this.got.length > 100) this.got.splice(0, 50)
    Y.applyUpdate(this.doc, bytes, 'net')
    if (kind === wire.STEP2) this.synced = true
    const { pendingStructs, pendingDs } = this.doc.store
    // What the server relays is complete for whoever is synced. (A tab may bring what it is not complete for, and the
    // reference passes on holes.)
    if (!REFERENCE && this.synced && !this.tabbed && (pendingStructs || pendingDs)) {
      throw new Broken(`the server sent an update with a hole: ${Buffer.from(bytes.slice(0, 300)).toString('hex')} leaves pending ${pendingStructs && JSON.stringify([...pendingStructs.missing])} ${pendingDs && Buffer.from(pendingDs).toString('hex')}`)
    }
    this.session.saw(this, bytes)
  }

  destroy () {
    this.cut()
    this.undo.destroy()
    this.awareness.destroy()
  }
}

const OPS = {
  edit: (peer, edits) => edit(peer.doc, edits, 'me'),
  undo: peer => peer.undo.undo(),
  redo: peer => peer.undo.redo(),
  stop: peer => peer.undo.stopCapturing(),
  cut: peer => peer.cut(),
  close: peer => peer.close(),
  dial: peer => peer.dial(),
  hold: (peer, dir) => {
    if (dir !== 'out') peer.held.in = true
    if (dir !== 'in') peer.held.out = true
  },
  free: (peer, dir) => peer.free(dir),
  step: (peer, dir, n) => peer.step(dir, n),
  shuffle: (peer, seed) => {
    // Step 1 stays first: no client can say anything before it.
    const [first, rest] = [peer.outbox.filter(m => m[0] !== 0 || m[1] === 0), peer.outbox.filter(m => m[0] === 0 && m[1] !== 0)]
    peer.outbox = [...first, ...shuffled(rest, seed)]
  },
  batch: peer => { peer.batch ??= [] },
  flush: (peer, mode, seed) => peer.flush(mode, seed),
  again: (peer, which, from, n, how) => {
    const log = peer[which]
    const at = Math.floor(from * log.length)
    const updates = log.slice(at, at + n)
    if (updates.length === 0) return
    if (how === 'merged') return peer.update(Y.mergeUpdates(updates))
    for (const update of updates) {
      if (how === 'step2') peer.push(wire.sync(wire.STEP2, update))
      else peer.update(update)
    }
  },
  overlap: (peer, how, fraction) => {
    // A diff from a vector that is behind: overlaps with what the server knows, at places where no update ever began.
    const back = new Map()
    let i = 0
    for (const [client, clock] of Y.decodeStateVector(Y.encodeStateVector(peer.doc))) {
      const at = Math.floor(clock * Math.abs(Math.sin(fraction * 100 + i++)))
      back.set(client, cutAt(peer.doc, client, at))
    }
    const from = Y.encodeStateVector(back)
    if (how === 'v2') return peer.update(Y.convertUpdateFormatV2ToV1(Y.encodeStateAsUpdateV2(peer.doc, from)))
    if (how === 'cut') return peer.update(Y.diffUpdate(Y.encodeStateAsUpdate(peer.doc), from))
    peer.push(wire.sync(how === 'step2' ? wire.STEP2 : wire.UPDATE, Y.encodeStateAsUpdate(peer.doc, from)))
  },
  forward: (peer, other, how, seed, session) => {
    // Something of another client's, perhaps with holes, is passed on by one who holds it, as a second provider on the
    // same document would. Whoever sends a thing has it: a server need not send it back.
    const from = session.peers[other]
    const pass = (update, push) => {
      peer.tabbed = true
      // Who got it past the server has not seen that the server has it.
      for (const { id } of Y.decodeUpdate(update).structs) peer.lineage.add(id.client)
      Y.applyUpdate(peer.doc, update, 'tab')
      push(update)
    }
    if (how === 'state') return pass(Y.encodeStateAsUpdate(from.doc), update => peer.push(wire.sync(wire.STEP2, update)))
    if (from.sent.length === 0) return
    const some = {
      last: () => from.sent[from.sent.length - 1],
      middle: () => from.sent[seed % from.sent.length],
      some: () => Y.mergeUpdates(from.sent.filter((_, i) => ((seed >>> (i % 31)) & 1) === 1).concat(from.sent.slice(0, 1)))
    }
    pass(some[how](), update => peer.update(update))
  },
  tab: (peer, what, session) => {
    if (what === 'hold') peer.held.tab = true
    else if (what === 'free') peer.held.tab = false
    else if (what === 'off') peer.inTab = false
    else if (!peer.inTab) {
      peer.inTab = peer.tabbed = true
      for (const other of session.peers) {
        if (other === peer || !other.inTab) continue
        other.tabbed = true
        other.tabbox.push(Y.encodeStateAsUpdate(peer.doc))
        peer.tabbox.push(Y.encodeStateAsUpdate(other.doc))
      }
    }
  },
  save: (peer, session) => {
    peer.saved = Y.encodeStateAsUpdate(peer.doc)
    session.snapshots.push(peer.saved)
  },
  crash: (peer, id) => {
    peer.cut()
    peer.batch = null
    peer.sent = []
    peer.got = []
    peer.tabbox = []
    peer.become(id, peer.saved)
  },
  resync: peer => peer.push(wire.sync(wire.STEP1, Y.encodeStateVector(peer.doc))),
  presence: (peer, what) => {
    if (what === 'set') peer.awareness.setLocalState({ at: peer.sent.length, name: peer.name })
    if (what === 'clear') peer.awareness.setLocalState(null)
    // Stock clients pass on what they know of others.
    const who = what === 'gossip' ? [...peer.awareness.meta.keys()] : [peer.doc.clientID]
    peer.push(wire.awareness(encodeAwarenessUpdate(peer.awareness, who)))
  },
  newcomer: async (peer, id, edits, session) => {
    if (session.down) return
    const guest = new Peer(session, `newcomer ${id}`, { id })
    try {
      guest.dial()
      await until(() => session.check() && guest.synced, { what: `${guest.name} is synced`, within: HEAL_MS, every: 0 })
      edit(guest.doc, edits, 'me')
      guest.close()
      await turn()
    } finally {
      guest.destroy()
    }
  },
  turns: async (peer, n) => {
    for (let i = 0; i < n; i++) await turn()
  },
  settle: async (peer, session) => {
    if (peer.open) await pong(peer.ws)
    for (let i = 0; i < 5; i++) await turn()
    session.check()
  },
  server: async (peer, how, session) => {
    session.down = true
    try {
      await session.server.restart({ hard: how === 'hard' })
      // Everyone's old socket is dead; wait until that was noticed, so that no old byte arrives later.
      await until(() => session.peers.every(p => p.ws === null || p.ws.readyState === WebSocket.CLOSED || p.ws.readyState === WebSocket.CONNECTING || (p.cut(), true)), { what: 'sockets end' })
      for (const p of session.peers) p.cut()
    } finally {
      session.down = false
    }
    await session.nothingSeenIsLost()
  }
}

/** A clock at or below `clock` where a string may be cut: not in the middle of a surrogate pair. */
function cutAt (doc, client, clock) {
  const structs = doc.store.clients.get(client) ?? []
  for (const struct of structs) {
    if (struct.id.clock < clock && clock < struct.id.clock + struct.length) {
      const s = struct.content?.str
      if (s === undefined) return clock
      const code = s.charCodeAt(clock - struct.id.clock)
      return code >= 0xdc00 && code <= 0xdfff ? clock - 1 : clock
    }
  }
  return clock
}

function pong (ws) {
  return new Promise(resolve => {
    const done = () => {
      ws.off('pong', done)
      ws.off('close', done)
      resolve()
    }
    ws.on('pong', done)
    ws.on('close', done)
    ws.ping()
  })
}

export class Session {
  /** @param {import('./server.mjs').Server} server */
  constructor (server, plan, name) {
    this.server = server
    this.plan = plan
    this.url = `${server.yjs}/${name}`
    this.snapshots = []
    this.seen = new Map()
    this.seenDeleted = { clients: new Map() }
    this.failure = null
    this.down = false
    this.peers = []
    this.peers = plan.clients.map((client, i) => new Peer(this, `client ${i}`, client))
    this.has = verb => plan.ops.some(([, v]) => v === verb)
    // The reference relays before it stores.
    this.watch = this.has('server') && !this.has('tab') && !REFERENCE
  }

  fail (text) {
    this.failure ??= new Broken(text)
  }

  check () {
    if (this.failure) throw this.failure
    return true
  }

  /** Notes what a client that did not make it has seen: no crash may lose it any more. */
  saw (peer, update) {
    if (!this.watch) return
    for (const [client, clock] of Y.getStateVector?.(peer.doc.store) ?? Y.decodeStateVector(Y.encodeStateVector(peer.doc))) {
      if (!peer.lineage.has(client) && clock > (this.seen.get(client) ?? 0)) this.seen.set(client, clock)
    }
    for (const [client, items] of Y.decodeUpdate(update).ds.clients) {
      this.seenDeleted.clients.set(client, [...(this.seenDeleted.clients.get(client) ?? []), ...items])
    }
  }

  async nothingSeenIsLost () {
    if (!this.watch) return
    const fresh = await this.fresh()
    const has = Y.decodeStateVector(Y.encodeStateVector(fresh.doc))
    for (const [client, clock] of this.seen) {
      if ((has.get(client) ?? 0) < clock) this.fail(`after the restart the server has ${has.get(client) ?? 0} of client ${client}; others had seen ${clock}`)
    }
    const gone = uncovered(normalise(this.seenDeleted), deleted(fresh.doc))
    if (gone.length > 0) this.fail(`after the restart the server lacks deletions that others had seen: ${JSON.stringify(gone)}`)
    fresh.destroy()
    this.check()
  }

  /** A client with no past, or the past `state`, that is synced. */
  async fresh (state) {
    const peer = new Peer(this, state ? 'a returning reader' : 'a fresh reader', { id: 2 ** 31 - 1, state })
    peer.dial()
    await until(() => this.check() && peer.synced, { what: `${peer.name} is synced`, within: HEAL_MS, every: 1 })
    return peer
  }

  async play () {
    for (const peer of this.peers) peer.dial()
    for (const [c, verb, ...args] of this.plan.ops) {
      const peer = this.peers[c]
      if (peer === undefined) continue
      try {
        await OPS[verb](peer, ...args, this)
      } catch (error) {
        error.message = `in ${JSON.stringify([c, verb, ...args])}: ${error.message}`
        throw error
      }
      for (const one of this.peers) one.tabs()
      await turn()
      this.check()
    }
  }

  /** Ends every fault and waits until all replicas are one. */
  async heal () {
    for (const peer of this.peers) {
      peer.flush('merge', 0)
      peer.free('both')
      peer.held.tab = false
    }
    for (const peer of this.peers) {
      peer.tabs()
      peer.inTab = false
    }
    // Tabs tell the server nothing of each other's until they reconnect (as in y-websocket); everyone else has to get by
    // without a second handshake, unless the server forgets what waits.
    if (this.has('tab') || this.plan.server === 'impatient' || REFERENCE) for (const peer of this.peers) peer.cut()
    await until(() => {
      this.check()
      for (const peer of this.peers) peer.dial()
      return this.peers.every(peer => peer.synced)
    }, { what: 'everyone is synced after the heal', within: HEAL_MS, detail: () => this.server.log() })
    await until(() => this.check() && this.peers.every(peer => sameVector(peer.doc, this.peers[0].doc)), {
      what: 'equal state vectors', within: HEAL_MS, detail: () => this.peers.map(peer => `${peer.name}: ${vector(peer.doc)} pending ${peer.doc.store.pendingStructs !== null}`).join('\n')
    })
    await this.equal(this.peers, 'the clients')
    const { doc } = this.peers[0]
    this.expected = { content: content(doc), vector: vector(doc), deleted: JSON.stringify(deleted(doc)) }
    const reader = await this.fresh()
    await this.equal([this.peers[0], reader], 'a fresh reader')
    reader.destroy()
    // Presence is gossip here, but whoever left must be gone.
    await until(() => this.peers.every(peer => !peer.awareness.getStates().has(2 ** 31 - 1)), { what: 'the reader left the presence', within: 2000 }).catch(error => this.fail(error.message))
    this.check()
  }

  async equal (peers, who) {
    const first = peers[0]
    const state = peer => [content(peer.doc), vector(peer.doc), JSON.stringify(deleted(peer.doc))]
    await until(() => {
      this.check()
      const a = state(first)
      return peers.every(peer => state(peer).every((text, i) => text === a[i]))
    }, {
      what: `${who} agree`,
      within: HEAL_MS,
      every: 10,
      detail: () => peers.slice(1).flatMap(peer => state(peer).map((text, i) => text === state(first)[i]
        ? ''
        : `${first.name} and ${peer.name}, ${['content', 'state vector', 'deleted ranges'][i]}: ${difference(state(first)[i], text)}`)).filter(Boolean).join('\n')
    })
  }

  /** Ends the clients; the document stays for `coldCheck`. */
  leave () {
    for (const peer of this.peers) peer.destroy()
  }

  /** After a restart of the server: what the store has is what everyone had. */
  async coldCheck () {
    const readers = [await this.fresh()]
    // Old states that hold nothing but what the server was told.
    if (!this.has('crash') && !this.has('tab')) {
      const states = this.snapshots.filter((_, i, all) => i % Math.ceil(all.length / 3) === 0)
      for (const state of states) readers.push(await this.fresh(state))
    }
    try {
      await until(() => {
        this.check()
        return readers.every(({ doc }) => content(doc) === this.expected.content && vector(doc) === this.expected.vector && JSON.stringify(deleted(doc)) === this.expected.deleted)
      }, {
        what: 'a reader after the restart sees what everyone saw',
        within: HEAL_MS,
        every: 10,
        detail: () => readers.map(({ name, doc }) => [
          name, this.expected.vector === vector(doc) ? '' : `state vector: ${difference(this.expected.vector, vector(doc))}`,
          this.expected.content === content(doc) ? '' : `content: ${difference(this.expected.content, content(doc))}`,
          this.expected.deleted === JSON.stringify(deleted(doc)) ? '' : `deleted: ${difference(this.expected.deleted, JSON.stringify(deleted(doc)))}`
        ].join('\n')).join('\n')
      })
    } finally {
      for (const reader of readers) reader.destroy()
    }
  }
}
