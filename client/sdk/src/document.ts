/**
 * One document on a connection: opens its channel, keeps both sides in step, and knows what became
 * of every local edit. It never merges two histories: a document whose epoch changed is set aside.
 */

import * as Y from 'yjs'
import { backoffMs } from './backoff.js'
import type { Member } from './connection.js'
import { Copy, UnreadableUpdate } from './copy.js'
import { forkDocument } from './fork.js'
import type { SaveState, Vector } from './ledger.js'
import { Ledger } from './ledger.js'
import type { Presence, PresenceSender } from './presence.js'
import { encodeClient, errorName } from './protocol/index.js'
import type { Opened, Position, ServerMessage } from './protocol/index.js'
import { ServerCopy } from './server-copy.js'
import type { Channel, Failure, FailureCode, Goaway, Session } from './session.js'
import { networkFailure } from './session.js'

/** What a client may do with a document. */
export type Access = 'read' | 'write'

/** One refused edit. */
export interface Rejection {
  readonly code: FailureCode
  /** Text for a person. */
  readonly message: string
  /** True: the document is frozen, nothing more of it is sent. False: it is sent again later. */
  readonly terminal: boolean
}

/** What a document reports to its provider. */
export interface DocumentObserver {
  onConnecting(): void
  /** The document is open and holds everything that the server had. */
  onOpened(): void
  onLost(failure: Failure): void
  /** No attempt follows. */
  onStopped(failure: Failure): void
  /** The server holds another history under this name. The local copy is untouched. */
  onReplaced(): void
  onRejected(rejection: Rejection): void
  onAccess(access: Access): void
  /** The document goes on by another session; nothing was interrupted. */
  onMoved(): void
  /** The server wants its clients elsewhere; the connection moves by itself. */
  onGoaway(goaway: Goaway): void
  /** The server lacks something and asked for it; it was sent if it may be. */
  onSyncRequest(): void
  /** Something in the numbers behind `pending` may have changed. */
  onLedger(): void
  /** An application's own message. */
  onMessage(body: Uint8Array): void
  onRtt(ms: number): void
}

/** A channel on the session that the connection is moving to, beside the one that is still in use. */
interface Next {
  readonly session: Session
  readonly channel: Channel
  /** What the server said there; undefined until it has. */
  opened: Opened | undefined
  /** Tells the connection that this document holds nothing up any more. */
  readonly ready: () => void
}

type Phase = 'idle' | 'opening' | 'open' | 'stopped'

/** Yjs update encoding version 1, in OPEN's list of what we understand. */
const ENCODING_YJS_V1 = 1

/** An update that holds nothing: no structs, no deletions. */
const EMPTY_UPDATE = new Uint8Array([0, 0])

/** Keeps one `Y.Doc` in step with the server. */
export class SyncedDocument implements Member {
  readonly #name: string
  readonly #copy: Copy
  readonly #server = new ServerCopy()
  readonly #presence: Presence
  readonly #wanted: Access
  readonly #observer: DocumentObserver
  /** The origin of the transactions that apply the server's updates. */
  readonly #origin: object
  readonly #random: () => number
  readonly #ledger = new Ledger()
  #phase: Phase = 'idle'
  #session: Session | undefined
  #channel: Channel | undefined
  #access: Access = 'write'
  #frozen = false
  #next: Next | undefined
  #nFailures = 0
  #retry: ReturnType<typeof setTimeout> | undefined

  constructor(options: {
    name: string
    doc: Y.Doc
    presence: Presence
    access: Access
    observer: DocumentObserver
    origin: object
    random: () => number
  }) {
    this.#name = options.name
    this.#copy = new Copy(options.doc, options.origin)
    this.#presence = options.presence
    this.#wanted = options.access
    this.#observer = options.observer
    this.#origin = options.origin
    this.#random = options.random
    // Content that was here before us counts as one edit that no server has confirmed.
    if (!this.#copy.isEmpty) this.#ledger.edit()
    this.#copy.doc.on('update', this.#onUpdate)
  }

  /** How many local edits are not durable. */
  get pending(): number {
    return this.#ledger.pending
  }

  get saveState(): SaveState {
    return this.#phase === 'open' || this.#ledger.pending === 0 ? this.#ledger.state : 'local'
  }

  /** The number of the newest local edit. */
  get edited(): number {
    return this.#ledger.edited
  }

  /** Every local edit up to this number is durable. */
  get durableUpTo(): number {
    return this.#ledger.durableUpTo
  }

  /** What the server grants; what was asked for until it has said. */
  get access(): Access {
    return this.#access
  }

  /** True after a terminal refusal: nothing more of this document is sent. */
  get frozen(): boolean {
    return this.#frozen
  }

  /** A new document with the same content, in which what the server lacks has new authors. */
  fork(): Y.Doc {
    return forkDocument(this.#copy.doc, this.#server.holds)
  }

  /** Broadcasts an application's own bytes to everyone who has the document open; not stored. */
  broadcast(body: Uint8Array): void {
    if (this.#phase === 'open') this.#send(encodeClient({ type: 'message', body }))
  }

  /** Closes the channel, when there is one, and forgets the session. */
  leave(): void {
    const channel = this.#channel
    this.#forget()
    this.#session = undefined
    if (channel !== undefined) end(channel)
  }

  /** After a terminal condition: try again, because a person said so. */
  revive(): void {
    if (this.#phase === 'stopped') this.#phase = 'idle'
  }

  /** Leaves for good. */
  destroy(): void {
    this.leave()
    this.#copy.doc.off('update', this.#onUpdate)
  }

  onConnecting(): void {
    this.#observer.onConnecting()
  }

  onConnected(session: Session): void {
    this.#session = session
    if (this.#phase === 'idle') this.#open(session)
  }

  onLost(failure: Failure): void {
    this.#session = undefined
    if (this.#phase === 'stopped') return
    this.#forget()
    this.#observer.onLost(failure)
  }

  onFailed(failure: Failure): void {
    this.#session = undefined
    if (this.#phase !== 'stopped') this.#stop(failure)
  }

  onPulse(): void {
    if (this.#phase === 'open') this.#presence.pulse()
  }

  onRtt(ms: number): void {
    this.#observer.onRtt(ms)
  }

  onGoaway(goaway: Goaway): void {
    if (this.#phase !== 'stopped') this.#observer.onGoaway(goaway)
  }

  onMoving(session: Session): Promise<void> {
    // What is not open yet has nothing to lose: it opens there when the old session is left.
    if (this.#phase !== 'open') return Promise.resolve()
    this.#dropNext()
    return new Promise((ready) => {
      this.#next = { session, channel: this.#openChannel(session), opened: undefined, ready }
    })
  }

  onMoved(session: Session): void {
    this.#session = session
    const next = this.#next
    this.#next = undefined
    if (this.#phase === 'stopped') return
    const old = this.#channel
    if (next?.session === session && next.opened !== undefined && this.#phase === 'open') {
      this.#channel = next.channel
      this.#ledger.reset()
      if (old !== undefined) end(old)
      this.#settle(next.opened)
      this.#observer.onMoved()
      this.#observer.onLedger()
      return
    }
    // A channel that was lost and is to be reopened later is reopened by its timer.
    if (this.#retry !== undefined) return
    this.#forget()
    this.#observer.onConnecting()
    if (next?.session === session) {
      this.#channel = next.channel
      this.#phase = 'opening'
    } else if (this.#is('idle')) this.#open(session)
  }

  onMoveFailed(): void {
    const wasThere = this.#next?.opened !== undefined
    this.#dropNext()
    if (wasThere && this.#channel !== undefined && this.#phase === 'open') {
      this.#presence.move(new Uint8Array(0), this.#presenceSender(this.#channel))
    }
  }

  #open(session: Session): void {
    this.#phase = 'opening'
    this.#channel = this.#openChannel(session)
  }

  #openChannel(session: Session): Channel {
    const first = encodeClient({
      type: 'open',
      document: this.#name,
      clientId: this.#copy.doc.clientID,
      ...this.#copy.known,
      access: this.#wanted === 'read' || this.#frozen ? 'read' : 'write',
      encodings: [ENCODING_YJS_V1],
    })
    const channel = session.open(first, {
      onMessage: (message) => {
        if (this.#channel === channel) this.#onMessage(message)
        else if (this.#next?.channel === channel) this.#onNextMessage(this.#next, message)
      },
      onDatagram: (body) => {
        if (this.#phase === 'open') this.#presence.receive(body)
      },
      onEnd: () => {
        if (this.#channel === channel) this.#closed(networkFailure('the server ended the channel'))
        else if (this.#next?.channel === channel) this.onMoveFailed()
      },
    })
    return channel
  }

  /**
   * What arrives on the channel that is not in use yet. Both channels are listened to, so nothing is
   * missed whenever the move is made; an update that comes twice does nothing the second time.
   */
  #onNextMessage(next: Next, message: ServerMessage): void {
    switch (message.type) {
      case 'opened':
        if (next.opened !== undefined || !this.#takeOpened(message)) return
        // Observers of the document ran, and may have left it.
        if (this.#next !== next) return
        next.opened = message
        this.#presence.move(message.awareness, this.#presenceSender(next.channel))
        next.ready()
        return
      case 'update':
        if (next.opened !== undefined) this.#receive(message.update, message.position)
        return
      case 'presence':
        if (next.opened !== undefined) this.#presence.receive(message.update)
        return
      case 'access':
        if (next.opened !== undefined) next.opened = { ...next.opened, access: message.access }
        return
      case 'syncRequest':
        if (next.opened !== undefined) next.opened = { ...next.opened, stateVector: message.stateVector }
        return
      case 'replaced':
        this.#replaced()
        return
      case 'closed': {
        const code = errorName(message.code)
        if (code === 'epoch_mismatch') this.#replaced()
        else if (message.retryable) this.onMoveFailed()
        else this.#stop({ code, message: message.text, retryable: false, retryAfterMs: 0 })
        return
      }
      default:
        // Nothing was sent there yet, so nothing is answered; a broadcast comes by the old channel too.
        return
    }
  }

  #onMessage(message: ServerMessage): void {
    switch (message.type) {
      case 'opened':
        this.#onOpened(message)
        return
      case 'update':
        if (this.#phase === 'open') this.#receive(message.update, message.position)
        return
      case 'durable':
        this.#server.note(this.#ledger.acknowledge(message.sequence))
        this.#observer.onLedger()
        return
      case 'syncRequest':
        this.#server.tell(message.stateVector)
        this.#sync()
        this.#observer.onSyncRequest()
        this.#observer.onLedger()
        return
      case 'rejected':
        this.#ledger.refuse(message.sequence)
        if (message.terminal) {
          // The server takes what is sent in order: everything before the first refusal is in.
          this.#server.note(this.#ledger.refusedFrom)
          this.#frozen = true
        }
        this.#observer.onRejected({ code: errorName(message.code), message: message.text, terminal: message.terminal })
        this.#observer.onLedger()
        return
      case 'presence':
        if (this.#phase === 'open') this.#presence.receive(message.update)
        return
      case 'message':
        this.#observer.onMessage(message.body)
        return
      case 'access':
        this.#onAccess(message.access)
        return
      case 'replaced':
        this.#replaced()
        return
      case 'closed': {
        const code = errorName(message.code)
        if (code === 'epoch_mismatch') this.#replaced()
        else this.#closed({ code, message: message.text, retryable: message.retryable, retryAfterMs: message.retryAfterMs })
        return
      }
      default:
        // SEEN promises nothing that the light shows; the rest belongs to the control channel.
        return
    }
  }

  #onOpened(message: Extract<ServerMessage, { type: 'opened' }>): void {
    if (this.#phase !== 'opening') return
    // Not open yet: what an editor changes in answer to the missing update belongs into the diff.
    // Observers of the document run, and may leave it.
    if (!this.#takeOpened(message) || !this.#is('opening')) return
    this.#phase = 'open'
    this.#server.open(message.stateVector)
    this.#settle(message)
    if (this.#channel !== undefined) this.#presence.open(message.awareness, this.#presenceSender(this.#channel))
    if (!this.#is('open')) return
    this.#observer.onAccess(this.#access)
    this.#observer.onOpened()
    this.#observer.onLedger()
  }

  /** Takes over what the server said on opening, and answers with what it lacks. */
  #settle(opened: Opened): void {
    this.#nFailures = 0
    const granted = opened.access !== this.#access && this.#phase === 'open'
    this.#access = opened.access
    this.#server.tell(opened.stateVector)
    this.#sync()
    if (granted) this.#observer.onAccess(opened.access)
  }

  #presenceSender(channel: Channel): PresenceSender {
    return {
      reliable: (update) => {
        channel.send(encodeClient({ type: 'presence', update }))
      },
      unreliable: (update) => channel.datagram(update),
    }
  }

  #onAccess(access: Access): void {
    this.#access = access
    this.#observer.onAccess(access)
    this.#sync()
    this.#observer.onLedger()
  }

  /** Sends everything that the server lacks, in one message that settles all that was pending. */
  #sync(): void {
    if (this.#phase !== 'open' || !this.#maySend) return
    const lacking = this.#server.lacks(this.#copy.doc)
    // The server lost what it had called durable, or never had what others sent us: not saved.
    if (lacking && this.#ledger.pending === 0) this.#ledger.edit()
    // A diff always repeats all deletions, however old. It is left out only when none can be news.
    const news = lacking || this.#ledger.pending > 0 || this.#ledger.doubtful
    const update = news ? this.#server.diff(this.#copy.doc) : EMPTY_UPDATE
    if (this.#isTooLarge(update)) return
    const after = Y.decodeStateVector(Y.encodeStateVector(this.#copy.doc))
    const sequence = this.#ledger.send(true, new Map(this.#server.holds), after)
    this.#send(encodeClient({ type: 'sync', sequence, update }))
  }

  get #maySend(): boolean {
    return this.#access === 'write' && this.#wanted === 'write' && !this.#frozen
  }

  readonly #onUpdate = (update: Uint8Array, origin: unknown, _doc: Y.Doc, transaction: Y.Transaction): void => {
    const { beforeState, afterState } = transaction
    if (origin === this.#origin) {
      for (const [client, clock] of afterState) {
        // Ours comes back to us only by OPENED, which says so itself.
        if (client !== this.#copy.doc.clientID && clock > (beforeState.get(client) ?? 0)) this.#server.note(new Map([[client, clock]]))
      }
      return
    }
    this.#ledger.edit()
    if (this.#phase === 'open' && this.#maySend && !this.#ledger.held && !this.#isTooLarge(update, beforeState)) {
      // What is too large for one update may still be a diff: a large picture, a long paste.
      const type = update.length > (this.#session?.limits.updateBytes ?? 0) ? 'sync' : 'update'
      this.#send(encodeClient({ type, sequence: this.#ledger.send(false, beforeState, afterState), update }))
    }
    this.#observer.onLedger()
  }

  /** Refuses here what the server would refuse by ending the whole session, other documents and all. */
  #isTooLarge(update: Uint8Array, sent?: Vector): boolean {
    const bytesMax = this.#session?.limits.diffBytes ?? Number.POSITIVE_INFINITY
    if (update.length <= bytesMax) return false
    this.#frozen = true
    this.#server.note(sent)
    const message = `an edit of ${update.length} bytes is more than the ${bytesMax} that the server takes`
    this.#observer.onRejected({ code: 'too_large', message, terminal: true })
    return true
  }

  /** Takes in what OPENED says of the document. */
  #takeOpened(opened: Opened): boolean {
    return this.#take(opened.update.length > 0, () => {
      this.#copy.open(opened)
    })
  }

  /** Takes in one update of the server, and the position that it brings us to. */
  #receive(update: Uint8Array, position: Position): boolean {
    return this.#take(true, () => {
      this.#copy.receive(update, position)
    })
  }

  /** False when what was taken cannot be read, and then the channel is redone. */
  #take(isNews: boolean, take: () => void): boolean {
    try {
      take()
    } catch (cause) {
      if (!(cause instanceof UnreadableUpdate)) throw cause
      this.#send(encodeClient({ type: 'close' }))
      this.#closed(networkFailure(cause.message))
      return false
    }
    if (isNews) this.#ledger.receive()
    return true
  }

  /** The channel is gone while the session may go on. */
  #closed(failure: Failure): void {
    if (!failure.retryable) {
      this.#stop(failure)
      return
    }
    this.#nFailures += 1
    const waitMs = Math.max(failure.retryAfterMs, backoffMs(this.#nFailures, this.#random))
    const channel = this.#channel
    this.#forget()
    channel?.finish()
    this.#observer.onLost(failure)
    this.#retry = setTimeout(() => {
      this.#retry = undefined
      if (this.#session === undefined || this.#phase !== 'idle') return
      this.#observer.onConnecting()
      this.#open(this.#session)
    }, waitMs)
  }

  #replaced(): void {
    this.#abandon()
    this.#observer.onReplaced()
    this.#observer.onLedger()
  }

  #stop(failure: Failure): void {
    this.#abandon()
    this.#observer.onStopped(failure)
    this.#observer.onLedger()
  }

  #abandon(): void {
    const channel = this.#channel
    this.#forget()
    this.#phase = 'stopped'
    channel?.finish()
  }

  /** Forgets the channel; every edit that is not durable is only here again. */
  #forget(): void {
    clearTimeout(this.#retry)
    this.#retry = undefined
    this.#dropNext()
    this.#channel = undefined
    if (this.#phase !== 'stopped') this.#phase = 'idle'
    this.#ledger.reset()
    this.#presence.close()
    this.#observer.onLedger()
  }

  #dropNext(): void {
    const next = this.#next
    if (next === undefined) return
    this.#next = undefined
    end(next.channel)
    next.ready()
  }

  /** A call, since the compiler does not know that the application's code runs in between. */
  #is(phase: Phase): boolean {
    return this.#phase === phase
  }

  #send(message: Uint8Array): void {
    this.#channel?.send(message)
  }
}

function end(channel: Channel): void {
  channel.send(encodeClient({ type: 'close' }))
  channel.finish()
}
