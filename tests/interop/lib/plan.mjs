// Makes the plan of a session from a seed: who takes part, and a list of operations that is plain data.
//
// An operation is [client, verb, ...arguments]. The verbs are in session.mjs. Each session has its own weights ("swarm
// testing"): a session that does everything a little finds less than many that do few things a lot.

import { Rng } from './rng.mjs'

const WORDS = ['a', 'b', 'xyz', ' ', '\n', 'lorem ipsum ', 'é', '文書', 'ß\u0301', '\u200d', '\t', '', 'العربية', 'q'.repeat(60)]
const EMOJI = ['😀', '👩‍👩‍👧', '🇩🇪', 'a😀b', '𝒳𝒴', '😀😀😀😀']
const KEYS = ['a', 'b', 'c', 'k1', 'k2', '', 'ключ', 'toString', 'long '.repeat(10), '0']
const NAMES = ['p', 'h1', 'div', 'UPPER', 'x-y', 'списък']

function scalar (rng) {
  return rng.weighted([
    [3, () => rng.int(-5, 300)], [1, () => rng.int(-(2 ** 31), 2 ** 31)], [1, () => rng.u32() * 4096 + 0.5], [1, () => rng.fraction()],
    [1, () => 2 ** 53 - 1], [3, () => rng.pick(WORDS)], [1, () => rng.pick(EMOJI)], [1, () => null], [1, () => rng.chance(0.5)],
    [1, () => ({ $: 'bigint', v: String(BigInt(rng.u32()) * BigInt(rng.int(-(2 ** 30), 2 ** 30))) })],
    [1, () => ({ n: [], o: {}, u: { $: 'undefined' }, deep: [[[{ x: [1, 'two', null] }]]] })]
  ])()
}

function anything (rng, has, depth = 0) {
  const nested = has.nested && depth < 3
  return rng.weighted([
    [6, () => scalar(rng)], [1, () => ({ $: 'bytes', n: rng.pick([0, 1, 5, 200]) })], [has.subdocs ? 0.4 : 0, () => ({ $: 'doc', guid: `guid-${rng.int(1, 1e6)}` })],
    [nested ? 1.5 : 0, () => ({ $: 'map', of: Object.fromEntries(Array.from({ length: rng.int(0, 3) }, () => [rng.pick(KEYS), anything(rng, has, depth + 1)])) })],
    [nested ? 1.5 : 0, () => ({ $: 'array', of: Array.from({ length: rng.int(0, 4) }, () => anything(rng, has, depth + 1)).filter(listable) })],
    [nested ? 1.5 : 0, () => ({ $: 'text', of: rng.pick(WORDS) })],
    [nested ? 0.7 : 0, () => node(rng, has, depth + 1)]
  ])()
}

/** Arrays take neither undefined nor a bare bigint. */
const listable = v => v?.$ !== 'undefined' && v?.$ !== 'bigint'

function node (rng, has, depth = 0) {
  return rng.weighted([
    [3, () => ({
      $: 'element',
      name: rng.pick(NAMES),
      attributes: rng.chance(0.5) ? { [rng.pick(KEYS)]: rng.pick(WORDS), n: scalar(rng) } : undefined,
      of: depth < 3 && rng.chance(0.5) ? Array.from({ length: rng.int(1, 3) }, () => node(rng, has, depth + 1)) : undefined
    })],
    [3, () => ({ $: 'xmltext', of: rng.pick(WORDS) })],
    [0.3, () => ({ $: 'hook', name: rng.pick(NAMES) })]
  ])()
}

function format (rng, remove = false) {
  const one = () => rng.weighted([
    [3, ['bold', remove ? null : true]], [2, ['em', remove ? null : true]], [1, ['link', remove ? null : { href: rng.pick(WORDS) }]],
    [1, ['color', remove ? null : rng.pick(['red', 'blue'])]]
  ])
  return Object.fromEntries(rng.chance(0.3) ? [one(), one()] : [one()])
}

function oneEdit (rng, has) {
  const to = () => (rng.chance(0.5) ? 0 : rng.fraction())
  // Most typing goes on where somebody else types: at the ends and in the middle.
  const at = () => rng.weighted([[1, 0], [2, 0.9999], [1, 0.5], [2, rng.fraction()]])
  const some = () => rng.weighted([[5, 1], [3, rng.int(2, 6)], [1, rng.int(7, 60)], [has.wipe ? 1 : 0.05, 1e6]])
  return rng.weighted([
    [8, () => ['text+', to(), at(), rng.pick(WORDS), null]],
    [2, () => ['text+', to(), at(), rng.pick(EMOJI), null]],
    [4, () => ['text-', to(), at(), some()]],
    [has.rich ? 3 : 0, () => ['text+', to(), at(), rng.pick(WORDS), format(rng)]],
    [has.rich ? 5 : 0, () => ['format', to(), at(), some(), format(rng, rng.chance(0.35))]],
    [has.rich ? 2 : 0, () => ['embed', to(), at(), rng.weighted([[3, { img: rng.int(1, 9) }], [has.nested ? 1 : 0, { $: 'map', of: { in: 'text' } }]])]],
    [has.paste ? 0.6 : 0, () => ['text+', to(), at(), [rng.pick([...WORDS, ...EMOJI]), rng.pick([100, 1000, 4000])], null]],
    [6, () => ['map+', to(), rng.pick(KEYS), anything(rng, has)]],
    [3, () => ['map-', to(), rng.pick(KEYS)]],
    [has.wipe ? 0.5 : 0.1, () => ['map0', to()]],
    [6, () => ['list+', to(), at(), Array.from({ length: rng.weighted([[4, 1], [2, rng.int(2, 5)], [has.paste ? 0.3 : 0, 500]]) }, () => anything(rng, has)).filter(listable)]],
    [4, () => ['list-', to(), at(), some()]],
    [has.xml ? 5 : 0, () => ['tree+', to(), at(), Array.from({ length: rng.int(1, 2) }, () => node(rng, has))]],
    [has.xml ? 3 : 0, () => ['tree-', to(), at(), some()]],
    [has.xml ? 2 : 0, () => ['attr+', to(), rng.pick(KEYS), rng.chance(0.8) ? rng.pick(WORDS) : scalar(rng)]],
    [has.xml ? 1 : 0, () => ['attr-', to(), rng.pick(KEYS)]]
  ])()
}

/** Client ids of all sizes: the order of sections, and the bytes that an id takes, depend on them. */
function clientId (rng, taken) {
  for (;;) {
    const id = rng.weighted([[3, rng.int(1, 200)], [2, rng.int(201, 2 ** 31)], [3, 2 ** 31 + (rng.u32() >>> 1)], [1, 2 ** 32 + rng.u32() * 4096]])
    if (!taken.has(id)) {
      taken.add(id)
      return id
    }
  }
}

/** The plan of the session with this seed. */
export function makePlan (seed) {
  const rng = new Rng(seed)
  const on = p => rng.chance(p)
  const has = {
    rich: on(0.6), nested: on(0.6), xml: on(0.5), subdocs: on(0.2), paste: on(0.3), wipe: on(0.3), undo: on(0.5),
    offline: on(0.7), hold: on(0.6), batch: on(0.5), dup: on(0.5), overlap: on(0.5), forward: on(0.3), shuffle: on(0.3),
    tabs: on(0.2), crash: on(0.3), server: on(0.15), newcomers: on(0.3)
  }
  const taken = new Set()
  const n = rng.int(2, 6)
  const clients = Array.from({ length: n }, () => ({ id: clientId(rng, taken), gc: !on(0.15) }))
  const length = rng.weighted([[3, rng.int(10, 60)], [4, rng.int(60, 200)], [1, rng.int(200, 600)]])
  const ops = []
  const dir = () => rng.pick(['in', 'out', 'both'])
  while (ops.length < length) {
    const c = rng.int(0, n - 1)
    const other = (c + rng.int(1, n - 1)) % n
    ops.push(rng.weighted([
      [30, () => [c, 'edit', Array.from({ length: rng.weighted([[6, 1], [2, rng.int(2, 5)], [0.3, 30]]) }, () => oneEdit(rng, has))]],
      [has.undo ? 4 : 0, () => [c, 'undo']],
      [has.undo ? 2 : 0, () => [c, 'redo']],
      [has.undo ? 3 : 0, () => [c, 'stop']],
      [has.offline ? 2 : 0.2, () => [c, rng.pick(['cut', 'close'])]],
      [has.offline ? 3 : 1, () => [c, 'dial']],
      [has.hold ? 3 : 0, () => [c, 'hold', dir()]],
      [has.hold ? 2 : 0, () => [c, 'free', dir()]],
      [has.hold ? 4 : 0, () => [c, 'step', dir(), rng.int(1, 4)]],
      [has.shuffle ? 3 : 0, () => [c, 'shuffle', rng.u32()]],
      [has.batch ? 3 : 0, () => [c, 'batch']],
      [has.batch ? 3 : 0, () => [c, 'flush', rng.pick(['merge', 'merge', 'shuffled', 'halves', 'reversed', 'first last', 'v2']), rng.u32()]],
      [has.dup ? 3 : 0, () => [c, 'again', rng.pick(['sent', 'got']), rng.fraction(), rng.int(1, 5), rng.pick(['update', 'step2', 'merged'])]],
      [has.overlap ? 3 : 0, () => [c, 'overlap', rng.pick(['update', 'step2', 'v2', 'cut']), rng.fraction()]],
      [has.forward ? 2 : 0, () => [c, 'forward', other, rng.pick(['state', 'last', 'some', 'middle']), rng.u32()]],
      [has.tabs ? 2 : 0, () => [c, 'tab', rng.pick(['on', 'on', 'on', 'off', 'hold', 'free'])]],
      [2, () => [c, 'save']],
      [has.crash ? 1.5 : 0, () => [c, 'crash', clientId(rng, taken)]],
      [1, () => [c, 'resync']],
      [2, () => [c, 'presence', rng.pick(['set', 'clear', 'gossip'])]],
      [has.newcomers ? 0.7 : 0, () => [c, 'newcomer', clientId(rng, taken), on(0.5) ? [oneEdit(rng, has)] : []]],
      [6, () => [c, 'turns', rng.pick([1, 2, 5, 20])]],
      [2, () => [c, 'settle']],
      [has.server ? 0.7 : 0, () => [c, 'server', rng.pick(['hard', 'hard', 'hard', 'soft'])]]
    ])())
  }
  return { seed, server: rng.pick(Object.keys(SERVERS)), has, clients, ops }
}

/**
 * The servers that sessions are played on. What happens at a bound once in a month with the usual bounds happens in every
 * session with these.
 */
export const SERVERS = {
  usual: undefined,
  // Members fall behind, tails are folded, idle rooms are evicted, segments and batches end all the time.
  cramped: `
[room]
idle = "20ms"
[room.outbox]
update_bytes_max = "300B"
updates_max = 3
[document]
tail_updates_max = 6
tail_bytes_max = "2KiB"
[journal]
segment_bytes = "64KiB"
[committer]
batch_rows_max = 3
gather = "1ms"
`,
  // What waits for its dependencies is pushed out before they come.
  impatient: `
[document]
parked_pieces_max = 2
parked_bytes_max = "1KiB"
parked_for = "100ms"
tail_updates_max = 2
[room.outbox]
updates_max = 1
`
}
