/**
 * Presence of one document: our own awareness state out, everybody else's in.
 *
 * Only the local client's entry is ever sent; the server owns who is there and clears it when a
 * session ends. Changes go as datagrams where the carrier has them, which may be lost, so the last
 * word of a burst is repeated on the reliable path; that we are gone is said there at once. The server
 * does the same towards the others.
 */

import type { Awareness } from 'y-protocols/awareness'
import { applyAwarenessUpdate, encodeAwarenessUpdate, removeAwarenessStates } from 'y-protocols/awareness'
import { report } from './report.js'

/** At most one message in this time: the server allows twenty a second. */
const GAP_MS = 60

/**
 * A burst is over after this much quiet; its last state is then repeated on the reliable path. As it is,
 * clock and all: a server that has it does nothing, one that has not tells the others, and sees to it
 * that it reaches them.
 */
const SETTLE_MS = 400

/** Others forget us after 30 s, so our state is renewed twice as often. */
const RENEW_MS = 15_000

/** The largest datagram that every browser and every path carries. */
export const DATAGRAM_BYTES_MAX = 1_100

/** How presence leaves: `unreliable` answers false when it has to go the other way. */
export interface PresenceSender {
  reliable(update: Uint8Array): void
  unreliable(update: Uint8Array): boolean
}

interface AwarenessChange {
  readonly added: readonly number[]
  readonly updated: readonly number[]
  readonly removed: readonly number[]
}

/** Wires one awareness to one document's channel. */
export class Presence {
  readonly #awareness: Awareness
  /** Marks what came from the server, so that it is not sent back. */
  readonly #origin: object
  #sender: PresenceSender | undefined
  #lastSentAt = Number.NEGATIVE_INFINITY
  #flushTimer: ReturnType<typeof setTimeout> | undefined
  #settleTimer: ReturnType<typeof setTimeout> | undefined
  #isMoving = false

  constructor(awareness: Awareness, origin: object) {
    this.#awareness = awareness
    this.#origin = origin
    awareness.on('update', this.#onUpdate)
  }

  /** The document is open: show who is there, then show ourselves. */
  open(snapshot: Uint8Array, sender: PresenceSender): void {
    // First, so that a handler which leaves in answer to the snapshot finds something to undo.
    this.#sender = sender
    this.receive(snapshot)
    if (this.#isOpen) this.#announce()
  }

  /**
   * From now on by another session, which knows the others too; we stay present to all of them. On the
   * reliable path, since the old session may be left in the next moment.
   */
  move(snapshot: Uint8Array, sender: PresenceSender): void {
    this.#clearTimers()
    this.#sender = sender
    this.receive(snapshot)
    if (!this.#isOpen || this.#awareness.getLocalState() === null) return
    this.#isMoving = true
    this.#announce()
    this.#isMoving = false
    this.#repeat()
  }

  /** The channel is gone, and with it everything we knew of the others. */
  close(): void {
    this.#sender = undefined
    this.#clearTimers()
    const others = [...this.#awareness.getStates().keys()].filter((id) => id !== this.#awareness.clientID)
    removeAwarenessStates(this.#awareness, others, this.#origin)
    // The clocks must go too: who is still there on our return comes back with the same clock, and
    // an awareness that remembers it takes that for old news.
    for (const id of [...this.#awareness.meta.keys()]) {
      if (id !== this.#awareness.clientID) this.#awareness.meta.delete(id)
    }
  }

  /** Applies what the server says of the others. Malformed states are dropped: presence heals. */
  receive(update: Uint8Array): void {
    if (update.length === 0) return
    try {
      applyAwarenessUpdate(this.#awareness, update, this.#origin)
    } catch (cause) {
      // What cannot be read is replaced by the next keyframe; a handler's fault is the application's.
      if (!(cause instanceof SyntaxError || cause instanceof RangeError)) report(cause)
    }
  }

  /** Called whenever a message arrives: renews our state where a hidden tab's timers would not. */
  pulse(): void {
    const meta = this.#awareness.meta.get(this.#awareness.clientID)
    if (this.#sender !== undefined && meta !== undefined && Date.now() - meta.lastUpdated >= RENEW_MS) this.#announce()
  }

  /** Stops listening. The awareness itself belongs to whoever made it. */
  destroy(): void {
    this.close()
    this.#awareness.off('update', this.#onUpdate)
  }

  get #isOpen(): boolean {
    return this.#sender !== undefined
  }

  /** Says that we are here, with a clock that nobody has seen yet. */
  #announce(): void {
    const state = this.#awareness.getLocalState()
    // Setting it raises the clock and comes back through `#onUpdate`.
    if (state !== null) this.#awareness.setLocalState(state)
  }

  readonly #onUpdate = (change: AwarenessChange, origin: unknown): void => {
    if (this.#isMoving) return
    const own = this.#awareness.clientID
    const touched = [...change.added, ...change.updated, ...change.removed].includes(own)
    if (!touched || this.#sender === undefined) return
    if (origin === this.#origin) {
      // Somebody said that we are gone. We are not.
      if (change.removed.includes(own)) this.#announce()
      return
    }
    if (change.removed.includes(own)) {
      this.#clearTimers()
      this.#sender.reliable(this.#encode())
      return
    }
    if (this.#flushTimer !== undefined) return
    const waitMs = this.#lastSentAt + GAP_MS - performance.now()
    if (waitMs <= 0) this.#flush()
    else {
      this.#flushTimer = setTimeout(() => {
        this.#flush()
      }, waitMs)
    }
  }

  #flush(): void {
    this.#clearTimers()
    const sender = this.#sender
    if (sender === undefined) return
    this.#lastSentAt = performance.now()
    const update = this.#encode()
    if (update.length > DATAGRAM_BYTES_MAX || !sender.unreliable(update)) {
      sender.reliable(update)
      return
    }
    this.#settleTimer = setTimeout(() => {
      this.#settleTimer = undefined
      this.#repeat()
    }, SETTLE_MS)
  }

  /** Says where we are on the path that loses nothing. */
  #repeat(): void {
    this.#sender?.reliable(this.#encode())
  }

  #encode(): Uint8Array {
    return encodeAwarenessUpdate(this.#awareness, [this.#awareness.clientID])
  }

  #clearTimers(): void {
    clearTimeout(this.#flushTimer)
    clearTimeout(this.#settleTimer)
    this.#flushTimer = undefined
    this.#settleTimer = undefined
  }
}
