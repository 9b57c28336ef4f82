/**
 * The server's copy of a document as far as we know it: what it said that it has, what it sent, and
 * what it confirmed.
 */

import * as Y from 'yjs'
import type { Vector } from './ledger.js'

/** What the server holds of one document. */
export class ServerCopy {
  /** What it had when it last told; a diff from here holds all that it lacks. */
  #told: Uint8Array = new Uint8Array([0])
  readonly #holds = new Map<number, number>()

  /** What it holds at least, by all that we know. */
  get holds(): ReadonlyMap<number, number> {
    return this.#holds
  }

  /** It opened the document: the whole truth of this moment, for it may have come back with less than before. */
  open(stateVector: Uint8Array): void {
    this.#holds.clear()
    this.tell(stateVector)
  }

  /** It told what it has. */
  tell(stateVector: Uint8Array): void {
    this.#told = stateVector
    this.note(Y.decodeStateVector(stateVector))
  }

  /** Notes what it holds, as far as it is more than was known. */
  note(vector: Vector | undefined): void {
    for (const [client, clock] of vector ?? []) {
      if (clock > (this.#holds.get(client) ?? 0)) this.#holds.set(client, clock)
    }
  }

  /** True when what it told is behind a document in any client's structs. */
  lacks(doc: Y.Doc): boolean {
    const theirs = Y.decodeStateVector(this.#told)
    for (const [client, clock] of Y.decodeStateVector(Y.encodeStateVector(doc))) {
      if (clock > (theirs.get(client) ?? 0)) return true
    }
    return false
  }

  /** Everything that it lacked when it last told, and all deletions, however old. */
  diff(doc: Y.Doc): Uint8Array {
    return Y.encodeStateAsUpdate(doc, this.#told)
  }
}
