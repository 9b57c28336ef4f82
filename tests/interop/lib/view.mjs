// What a document shows, in a form that two replicas can be compared by: formatting by its effect (Yjs removes redundant
// marks by itself, at different times on different peers), keys sorted, values of every kind told apart.

import * as Y from 'yjs'

/** The root types that the generated sessions edit. */
export const ROOTS = [['text', 'getText'], ['emoji', 'getText'], ['map', 'getMap'], ['array', 'getArray'], ['xml', 'getXmlFragment']]

export function roots (doc) {
  return ROOTS.map(([name, get]) => doc[get](name))
}

function value (v) {
  if (v === undefined) return { $: 'undefined' }
  if (v === null || typeof v !== 'object') return typeof v === 'bigint' ? { $: 'bigint', v: String(v) } : v
  if (v instanceof Y.AbstractType) return type(v)
  if (v instanceof Y.Doc) return { $: 'doc', guid: v.guid }
  if (v instanceof Uint8Array) return { $: 'bytes', hex: Buffer.from(v).toString('hex') }
  if (Array.isArray(v)) return v.map(value)
  return object(Object.entries(v))
}

function object (entries) {
  const sorted = {}
  for (const [key, v] of [...entries].sort(([a], [b]) => (a < b ? -1 : 1))) sorted[`.${key}`] = value(v)
  return sorted
}

function delta (text) {
  const ops = []
  let last
  for (const { insert, attributes = {} } of text.toDelta()) {
    const format = JSON.stringify(object(Object.entries(attributes).filter(([, v]) => v !== null)))
    if (typeof insert === 'string' && last?.format === format && typeof last.insert === 'string') {
      last.insert += insert
    } else {
      last = { insert: typeof insert === 'string' ? insert : value(insert), format }
      ops.push(last)
    }
  }
  return ops
}

function type (t) {
  if (t instanceof Y.Text) return { $: t.constructor.name, delta: delta(t), attributes: object(Object.entries(t.getAttributes())) }
  if (t instanceof Y.Map) return { $: t.constructor.name, hook: t.hookName, entries: object(t.entries()) }
  if (t instanceof Y.Array) return { $: 'array', items: t.toArray().map(value) }
  if (t instanceof Y.XmlElement) return { $: 'element', name: t.nodeName, attributes: object(Object.entries(t.getAttributes())), children: t.toArray().map(value) }
  if (t instanceof Y.XmlFragment) return { $: 'fragment', children: t.toArray().map(value) }
  return { $: 'unknown', name: t.constructor.name }
}

/** Everything that the document shows, as a string. */
export function content (doc) {
  return JSON.stringify(Object.fromEntries(ROOTS.map(([name, get]) => [name, type(doc[get](name))])), null, 1)
}

/** The state vector, as a string that is equal for equal vectors. */
export function vector (doc) {
  return JSON.stringify([...Y.decodeStateVector(Y.encodeStateVector(doc))].sort(([a], [b]) => a - b))
}

/** The deleted ranges, as `[client, [[clock, length], ...]]`, normalised. */
export function deleted (doc) {
  return normalise(Y.createDeleteSetFromStructStore(doc.store))
}

/** A Yjs delete set with its ranges sorted and joined. */
export function normalise (deleteSet) {
  const clients = []
  for (const [client, items] of deleteSet.clients) {
    const ranges = []
    for (const { clock, len } of items.slice().sort((a, b) => a.clock - b.clock)) {
      const last = ranges[ranges.length - 1]
      if (last && clock <= last[0] + last[1]) last[1] = Math.max(last[1], clock + len - last[0])
      else ranges.push([clock, len])
    }
    if (ranges.length > 0) clients.push([client, ranges])
  }
  return clients.sort(([a], [b]) => a - b)
}

/** Ranges of `part` that `whole` does not cover, both normalised. */
export function uncovered (part, whole) {
  const known = new Map(whole)
  const missing = []
  for (const [client, ranges] of part) {
    for (const [clock, length] of ranges) {
      let at = clock
      for (const [from, span] of known.get(client) ?? []) {
        if (from <= at && at < from + span) at = from + span
      }
      if (at < clock + length) missing.push([client, at, clock + length - at])
    }
  }
  return missing
}

/** Where two strings part, with what stands around. */
export function difference (a, b) {
  let at = 0
  while (at < a.length && a[at] === b[at]) at++
  const from = Math.max(0, at - 300)
  return `differ at ${at} of ${a.length}/${b.length}:\n--- ${JSON.stringify(a.slice(from, at + 300))}\n+++ ${JSON.stringify(b.slice(from, at + 300))}`
}
