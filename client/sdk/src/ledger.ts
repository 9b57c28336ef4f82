/**
 * What became of every local edit: the arithmetic behind `pending` and the save light.
 *
 * Edits are numbered once and for ever, in the order in which they were made; messages are numbered
 * by the channel, from 1 each time it opens. Each message remembers up to which edit it speaks, so
 * an acknowledgement by sequence says exactly which edits are safe, however many messages they
 * took and however often the connection was lost meanwhile. Nothing here counts acknowledgements.
 * Pure: no clock, no I/O.
 */

/** Where the local edits are. `local`: some are only here. `saving`: all sent, not all durable. */
export type SaveState = 'local' | 'saving' | 'saved'

/** What a document holds, by client: a state vector, decoded. Only carried along here. */
export type Vector = ReadonlyMap<number, number>

interface Flight {
  readonly sequence: number
  /** What the server holds if it took everything before this message. */
  readonly before: Vector
  /** What it holds once it has taken this message too. */
  readonly after: Vector
  /** The newest edit that this message contains. */
  readonly upTo: number
  /** True for a message that contains everything the server lacked, whatever was refused before. */
  readonly whole: boolean
  /** How many of the server's updates had arrived when this was sent. */
  readonly received: number
  refused: boolean
}

/** The numbers of one document. */
export class Ledger {
  #edited = 0
  #sent = 0
  #durable = 0
  #sequence = 0
  #flights: Flight[] = []
  #received = 0
  #receivedDurable = 0
  /** A refusal was settled: later messages have a hole before them until a whole one lands. */
  #hole = false
  /** A refusal is not yet answered by a whole message: nothing more should be sent. */
  #held = false
  #refusedFrom: Vector | undefined

  /** How many local edits are not durable. */
  get pending(): number {
    return this.#edited - this.#durable
  }

  /** True after a refusal, until a whole message was sent. Edits are kept, not sent. */
  get held(): boolean {
    return this.#held
  }

  /** What the server holds at most while a refusal is unmended; undefined when none is. */
  get refusedFrom(): Vector | undefined {
    return this.#refusedFrom
  }

  /** True when an acknowledgement is still owed for something that was sent on this channel. */
  get awaiting(): boolean {
    return this.#flights.length > 0
  }

  /** Where the edits are, for the save light. */
  get state(): SaveState {
    if (this.pending === 0) return 'saved'
    return this.#held || this.#sent < this.#edited ? 'local' : 'saving'
  }

  /** The number of the newest edit; an edit is durable once `durableUpTo` has reached its number. */
  get edited(): number {
    return this.#edited
  }

  /** Every edit up to this number is durable. */
  get durableUpTo(): number {
    return this.#durable
  }

  /**
   * True when something that the server sent us may not be durable there, so that a server whose
   * machine was lost could need it back from us.
   */
  get doubtful(): boolean {
    return this.#received > this.#receivedDurable
  }

  /** Records one update of the server. */
  receive(): void {
    this.#received += 1
  }

  /** Records one local edit. */
  edit(): void {
    this.#edited += 1
  }

  /**
   * Records that a message with every edit so far is going out, and gives it its sequence.
   * `whole` says that it holds all that the server lacks, not just the newest edits.
   */
  send(whole: boolean, before: Vector = NOTHING, after: Vector = NOTHING): number {
    this.#sequence += 1
    this.#sent = this.#edited
    if (whole) this.#held = false
    const { sequence, upTo, received } = { sequence: this.#sequence, upTo: this.#edited, received: this.#received }
    this.#flights.push({ sequence, before, after, upTo, whole, received, refused: false })
    return this.#sequence
  }

  /**
   * The server has committed, or settled by refusing, every message up to `sequence`. Returns what it
   * therefore holds, when that is more than before.
   */
  acknowledge(sequence: number): Vector | undefined {
    let n = 0
    let held: Vector | undefined
    for (const flight of this.#flights) {
      if (flight.sequence > sequence) break
      n += 1
      // The server commits in its own order, and what it had sent us came before what we then sent.
      this.#receivedDurable = Math.max(this.#receivedDurable, flight.received)
      if (flight.refused) this.#hole = true
      else if (flight.whole) this.#hole = false
      if (this.#hole) continue
      this.#durable = Math.max(this.#durable, flight.upTo)
      this.#refusedFrom = undefined
      held = flight.after
    }
    this.#flights.splice(0, n)
    return held
  }

  /** The server refused one message. Its edits stay pending until a whole message is durable. */
  refuse(sequence: number): void {
    const flight = this.#flights.find((candidate) => candidate.sequence === sequence)
    if (flight === undefined) return
    flight.refused = true
    this.#refusedFrom ??= flight.before
    // A whole message that is already on its way carries the refused edits again.
    this.#held = !this.#flights.some((later) => later.sequence > sequence && later.whole && !later.refused)
  }

  /** The channel is gone: what is not durable is only here again, and sequences start anew. */
  reset(): void {
    this.#sent = this.#durable
    this.#sequence = 0
    this.#flights = []
    this.#hole = false
    this.#held = false
    this.#refusedFrom = undefined
  }
}

const NOTHING: Vector = new Map()
