/**
 * A fork: the same content, in which whatever the server lacks has new authors.
 *
 * A server that has refused an edit can take nothing more of its author: the author's next clock has
 * a hole before it, for ever. So every struct that the server does not hold is given a fresh client
 * id, with clocks from 0, and every reference to it is changed along. What the server does hold
 * stays as it is, so that a fork may go back into the same document and meets nothing twice.
 */

import * as encoding from 'lib0/encoding'
import * as Y from 'yjs'

type Struct = Y.Item | Y.GC

/** Clocks by client: what a state vector says. */
export type Clocks = ReadonlyMap<number, number>

/** A new document with everything that `doc` holds; what is beyond `known` is authored anew. */
export function forkDocument(doc: Y.Doc, known: Clocks): Y.Doc {
  const fork = new Y.Doc({ gc: doc.gc })
  // Not the fork's own id yet: Yjs would think that somebody else uses it.
  const own = new Y.Doc().clientID
  Y.applyUpdate(fork, new Author(doc, known, own).rewrite(Y.encodeStateAsUpdate(doc)))
  fork.clientID = own
  return fork
}

class Author {
  readonly #known: Clocks
  readonly #fresh: Map<number, number>
  readonly #taken: Set<number>
  readonly #complete: Clocks

  constructor(doc: Y.Doc, known: Clocks, own: number) {
    this.#known = known
    // Whoever goes on writing in the fork is who wrote last in the original.
    this.#fresh = new Map([[doc.clientID, own]])
    this.#complete = Y.decodeStateVector(Y.encodeStateVector(doc))
    this.#taken = new Set([...this.#complete.keys(), own])
  }

  rewrite(update: Uint8Array): Uint8Array {
    const { structs, ds } = Y.decodeUpdate(update)
    const byClient = new Map<number, Struct[]>()
    for (const struct of structs) {
      // Pieces that still wait for others are no content yet, and it is the server that has them.
      const isWaiting = struct.id.clock >= (this.#complete.get(struct.id.client) ?? 0)
      if (struct instanceof Y.Skip || isWaiting) continue
      for (const piece of this.#cut(struct)) {
        const list = byClient.get(piece.id.client) ?? []
        byClient.set(piece.id.client, [...list, piece])
      }
    }
    const encoder = new Y.UpdateEncoderV1()
    encoding.writeVarUint(encoder.restEncoder, byClient.size)
    for (const [client, list] of [...byClient].sort(([a], [b]) => b - a)) {
      encoding.writeVarUint(encoder.restEncoder, list.length)
      encoder.writeClient(client)
      encoding.writeVarUint(encoder.restEncoder, list[0]?.id.clock ?? 0)
      for (const struct of list) struct.write(encoder, 0)
    }
    this.#writeDeletes(encoder, ds.clients)
    return encoder.toUint8Array()
  }

  /** One struct, or two when the server holds only its first part; all with their new ids. */
  #cut(struct: Y.Item | Y.GC): Struct[] {
    const { client, clock } = struct.id
    const head = (this.#known.get(client) ?? 0) - clock
    if (struct instanceof Y.GC) {
      if (head <= 0 || head >= struct.length) return [new Y.GC(this.#id(struct.id), struct.length)]
      return [new Y.GC(struct.id, head), new Y.GC(this.#id(Y.createID(client, clock + head)), struct.length - head)]
    }
    if (head <= 0 || head >= struct.length) return [this.#item(struct, struct.id, struct.origin, struct.content)]
    const rest = struct.content.splice(head)
    return [
      this.#item(struct, struct.id, struct.origin, struct.content),
      this.#item(struct, Y.createID(client, clock + head), Y.createID(client, clock + head - 1), rest),
    ]
  }

  #item(item: Y.Item, id: Y.ID, origin: Y.ID | null, content: Y.Item['content']): Y.Item {
    // A decoded item knows its parent only where no neighbour tells, and then by name or by id.
    const parent: unknown = item.parent
    return new Y.Item(
      this.#id(id),
      null,
      origin === null ? null : this.#id(origin),
      null,
      item.rightOrigin === null ? null : this.#id(item.rightOrigin),
      (parent instanceof Y.ID ? this.#id(parent) : parent) as Y.Item['parent'],
      item.parentSub,
      content,
    )
  }

  #id(id: Y.ID): Y.ID {
    const known = this.#known.get(id.client) ?? 0
    return id.clock < known ? id : Y.createID(this.#freshOf(id.client), id.clock - known)
  }

  /** One fresh id for each author, so that nobody's clocks get another order. */
  #freshOf(client: number): number {
    let fresh = this.#fresh.get(client)
    while (fresh === undefined) {
      const candidate = new Y.Doc().clientID
      if (!this.#taken.has(candidate)) fresh = candidate
    }
    this.#fresh.set(client, fresh)
    this.#taken.add(fresh)
    return fresh
  }

  #writeDeletes(encoder: Y.UpdateEncoderV1, clients: ReadonlyMap<number, readonly { clock: number; len: number }[]>): void {
    const ranges = new Map<number, [number, number][]>()
    const add = (client: number, clock: number, length: number): void => {
      if (length > 0) ranges.set(client, [...(ranges.get(client) ?? []), [clock, length]])
    }
    for (const [client, deletes] of clients) {
      const known = this.#known.get(client) ?? 0
      for (const { clock, len } of deletes) {
        const head = Math.min(len, Math.max(0, known - clock))
        add(client, clock, head)
        if (head < len) add(this.#freshOf(client), clock + head - known, len - head)
      }
    }
    encoding.writeVarUint(encoder.restEncoder, ranges.size)
    for (const [client, list] of ranges) {
      encoding.writeVarUint(encoder.restEncoder, client)
      encoding.writeVarUint(encoder.restEncoder, list.length)
      for (const [clock, length] of list) {
        encoding.writeVarUint(encoder.restEncoder, clock)
        encoding.writeVarUint(encoder.restEncoder, length)
      }
    }
  }
}
