/**
 * This side's copy of a document: its content, the history that it belongs to, and how far it is in
 * the server's log. The three change together, so that the position never promises content that the
 * copy does not have.
 */

import * as Y from 'yjs'
import { Position } from './protocol/index.js'
import type { Opened } from './protocol/index.js'
import { report } from './report.js'

/** An update of the server that is none. */
export class UnreadableUpdate extends Error {
  override readonly name = 'UnreadableUpdate'
}

/** The copy in one `Y.Doc`. */
export class Copy {
  readonly doc: Y.Doc
  /** The origin of the transactions that apply the server's updates. */
  readonly #origin: object
  #epoch: Uint8Array | undefined
  #position = new Position()

  constructor(doc: Y.Doc, origin: object) {
    this.doc = doc
    this.#origin = origin
  }

  /** Whether it holds anything, deletions apart. */
  get isEmpty(): boolean {
    return Y.encodeStateVector(this.doc).length <= 1
  }

  /** What OPEN tells of it: how the server finds out what it lacks. */
  get known(): { epoch: Uint8Array | undefined; stateVector: Uint8Array; position: Uint8Array | undefined } {
    return {
      epoch: this.#epoch,
      stateVector: Y.encodeStateVector(this.doc),
      position: this.#epoch === undefined ? undefined : this.#position.encode(),
    }
  }

  /**
   * Takes OPENED in: what was missing, and the server's position in place of ours. With what was
   * missing the copy has all that the server has, so its position is true of both; and entries of ours
   * that the server no longer knows would only make it distrust the rest (STORAGE.md, ST44).
   */
  open(opened: Opened): void {
    if (opened.update.length > 0) this.#apply(opened.update)
    this.#epoch = opened.epoch
    this.#position = opened.position
  }

  /** Takes an update in, and moves the position forward by what it brought. */
  receive(update: Uint8Array, position: Position): void {
    this.#apply(update)
    this.#position.mergeMax(position)
  }

  #apply(update: Uint8Array): void {
    try {
      Y.applyUpdate(this.doc, update, this.#origin)
    } catch (cause) {
      if (!isReadable(update)) throw new UnreadableUpdate(`unreadable update from the server: ${String(cause)}`, { cause })
      // It was an observer of the document that threw, after the update was in.
      report(cause)
    }
  }
}

function isReadable(update: Uint8Array): boolean {
  try {
    Y.parseUpdateMeta(update)
    return true
  } catch {
    return false
  }
}
