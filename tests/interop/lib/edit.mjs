// Edits as data. An edit names its target and its position by fractions, so that the same list can be played on whatever
// the document looks like by then, and still can when half of the list was cut away by the shrinker.

import * as Y from 'yjs'
import { roots } from './view.mjs'

/** A string from a plan: itself, or `[unit, n]` for a repeated one. */
const text = s => (Array.isArray(s) ? s[0].repeat(s[1]) : s)

/** A value from a plan: JSON stands for itself, `{ $: kind }` for what JSON lacks. */
function make (v) {
  if (v === null || typeof v !== 'object') return v
  if (Array.isArray(v)) return v.map(make)
  switch (v.$) {
    case undefined: return Object.fromEntries(Object.entries(v).map(([key, item]) => [key, make(item)]))
    case 'undefined': return undefined
    case 'bigint': return BigInt(v.v)
    case 'bytes': return Uint8Array.from({ length: v.n }, (_, i) => (i * 7 + v.n) & 255)
    case 'doc': return new Y.Doc({ guid: v.guid })
    case 'map': return new Y.Map(Object.entries(v.of ?? {}).map(([key, item]) => [key, make(item)]))
    case 'array': return Y.Array.from((v.of ?? []).map(make))
    case 'text': return new Y.Text(text(v.of ?? ''))
    case 'xmltext': return new Y.XmlText(text(v.of ?? ''))
    case 'fragment': return new Y.XmlFragment()
    case 'hook': return new Y.XmlHook(v.name)
    case 'element': {
      const element = new Y.XmlElement(v.name)
      for (const [key, item] of Object.entries(v.attributes ?? {})) element.setAttribute(key, make(item))
      if (v.of) element.insert(0, v.of.map(make))
      return element
    }
    default: throw new Error(`a plan with an unknown value ${JSON.stringify(v)}`)
  }
}

/** All types that live in the document, parents before children. */
function types (doc) {
  const found = roots(doc)
  for (let i = 0; i < found.length && found.length < 400; i++) {
    const t = found[i]
    if (t instanceof Y.Map) for (const item of t.values()) push(item)
    else if (t instanceof Y.Text) for (const { insert } of t.toDelta()) push(insert)
    else for (const item of t.toArray()) push(item)
    function push (item) {
      if (item instanceof Y.AbstractType) found.push(item)
    }
  }
  return found
}

const KINDS = {
  text: t => t instanceof Y.Text,
  map: t => t instanceof Y.Map,
  list: t => t instanceof Y.Array,
  tree: t => t instanceof Y.XmlFragment,
  element: t => t instanceof Y.XmlElement
}

function target (doc, kind, fraction) {
  const fit = types(doc).filter(KINDS[kind])
  return fit.length === 0 ? undefined : fit[Math.floor(fraction * fit.length)]
}

/** Moves an index of a text off the middle of a surrogate pair: splitting one makes stock peers differ by themselves. */
function whole (t, index) {
  let at = 0
  for (let item = t._start; item !== null; item = item.right) {
    if (item.deleted || !item.countable) continue
    if (index < at + item.length) {
      const s = item.content.str
      if (s === undefined || index === at) return index
      const code = s.charCodeAt(index - at)
      return code >= 0xdc00 && code <= 0xdfff ? index - 1 : index
    }
    at += item.length
  }
  return index
}

const place = (length, fraction) => Math.floor(fraction * (length + 1))

const VERBS = {
  'text+': (doc, to, at, s, format) => {
    const t = target(doc, 'text', to)
    if (format) t.insert(whole(t, place(t.length, at)), text(s), format)
    else t.insert(whole(t, place(t.length, at)), text(s))
  },
  'text-': (doc, to, at, n) => {
    const t = target(doc, 'text', to)
    const from = whole(t, place(t.length, at))
    const until = whole(t, Math.min(t.length, from + n))
    if (until > from) t.delete(from, until - from)
  },
  format: (doc, to, at, n, format) => {
    const t = target(doc, 'text', to)
    const from = whole(t, place(t.length, at))
    const until = whole(t, Math.min(t.length, from + n))
    if (until > from) t.format(from, until - from, format)
  },
  embed: (doc, to, at, v) => {
    const t = target(doc, 'text', to)
    t.insertEmbed(whole(t, place(t.length, at)), make(v))
  },
  'map+': (doc, to, key, v) => target(doc, 'map', to)?.set(key, make(v)),
  'map-': (doc, to, key) => target(doc, 'map', to)?.delete(key),
  'map0': (doc, to) => target(doc, 'map', to)?.clear(),
  'list+': (doc, to, at, items) => {
    const t = target(doc, 'list', to)
    t.insert(place(t.length, at), items.map(make))
  },
  'list-': (doc, to, at, n) => {
    const t = target(doc, 'list', to)
    const from = place(t.length, at)
    const count = Math.min(n, t.length - from)
    if (count > 0) t.delete(from, count)
  },
  'tree+': (doc, to, at, items) => {
    const t = target(doc, 'tree', to)
    t.insert(place(t.length, at), items.map(make))
  },
  'tree-': (doc, to, at, n) => {
    const t = target(doc, 'tree', to)
    const from = place(t.length, at)
    const count = Math.min(n, t.length - from)
    if (count > 0) t.delete(from, count)
  },
  'attr+': (doc, to, key, v) => target(doc, 'element', to)?.setAttribute(key, make(v)),
  'attr-': (doc, to, key) => target(doc, 'element', to)?.removeAttribute(key)
}

/** Plays a list of edits as one transaction. */
export function edit (doc, edits, origin) {
  doc.transact(() => {
    for (const [verb, ...args] of edits) VERBS[verb](doc, ...args)
  }, origin)
}
