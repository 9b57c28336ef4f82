// Updates that are not what they seem: the corpus of what broke a CRDT library, and more of its kind. Each is small enough
// to send and wrong, or valid and out of proportion.

import * as encoding from 'lib0/encoding'

/** Bytes from hexadecimal. */
export const hex = text => Uint8Array.from(Buffer.from(text.replace(/\s/g, ''), 'hex'))

function bytes (write) {
  const encoder = encoding.createEncoder()
  write({
    u: n => encoding.writeVarUint(encoder, n),
    s: text => encoding.writeVarString(encoder, text),
    b: (...list) => { for (const byte of list) encoding.writeUint8(encoder, byte) },
    raw: list => encoding.writeUint8Array(encoder, list)
  })
  return encoding.toUint8Array(encoder)
}

/** An update with one section: `structs` structs of `client` from `clock`, and an empty delete set. */
function section (client, clock, structs, write, end = w => w.u(0)) {
  return bytes(w => {
    w.u(1)
    w.u(structs)
    w.u(client)
    w.u(clock)
    write(w)
    end(w)
  })
}

/** One item in the root array "arr" whose content is written by `content`; `info` names its kind. */
const item = (info, content, client = 77) => section(client, 0, 1, w => {
  w.b(info)
  w.u(1)
  w.s('arr')
  content(w)
})

const HUGE = 2 ** 35
const many = (n, list) => {
  const all = new Uint8Array(n * list.length)
  for (let i = 0; i < n; i++) all.set(list, i * list.length)
  return all
}

/** A chain of maps, each in the one before: valid, if nobody recurses. */
export const nestedMaps = (n, client = 9) => section(client, 0, n, w => {
  for (let i = 0; i < n; i++) {
    w.b(0x27)
    if (i === 0) {
      w.u(1)
      w.s('map')
    } else {
      w.u(0)
      w.u(client)
      w.u(i - 1)
    }
    w.s('k')
    w.u(1)
  }
})

/** `n` pushes of one number to the root array "pushed": valid. */
export const pushes = (n, client = 31) => section(client, 0, n, w => {
  for (let i = 0; i < n; i++) {
    if (i === 0) {
      w.b(0x08)
      w.u(1)
      w.s('pushed')
    } else {
      w.b(0x88)
      w.u(client)
      w.u(i - 1)
    }
    w.u(1)
    w.b(0x7d, i & 63)
  }
})

/** `n` sets of one map key that name no predecessor: valid. */
export const sets = (n, client = 32) => section(client, 0, n, w => {
  for (let i = 0; i < n; i++) {
    w.b(0x28)
    w.u(1)
    w.s('m')
    w.s('key')
    w.u(1)
    w.b(0x7d, i & 63)
  }
})

/** One character of `client` at `clock`, after something that will never come. */
export const orphan = (client, clock) => section(client, clock, 1, w => {
  w.b(0x84)
  w.u(client)
  w.u(clock - 1)
  w.s('x')
})

/**
 * What must be refused: the session that sends it is closed with a final code.
 * @type {[string, Uint8Array][]}
 */
export const REFUSED = [
  ['2a: a count of clients and nothing else', hex('ffffff7f')],
  ['2b: another', hex('ffffff5b')],
  ['2c: a count of structs that cannot be', hex('d0acf30e01940101')],
  ['3: an array in an array, 100,000 deep', item(0x08, w => {
    w.u(1)
    w.raw(many(100000, [0x75, 0x01]))
    w.b(0x7e)
  })],
  ['3: an object in an object, 65 deep', item(0x08, w => {
    w.u(1)
    w.raw(many(66, [0x76, 0x01, 0x01, 0x61]))
    w.b(0x7e)
  })],
  ['4: maps in maps, 20,000 deep', nestedMaps(20000)],
  ['5: a clock near 2^32', hex('0101f907ffffffff0f2800f9076a01610177013700')],
  ['6: two structs over the end of the clocks', hex('0102f607ffffffff0f2801036d61700175017f2801036d617001770175027f7e00')],
  ['11: 2^35 clients', bytes(w => { w.u(HUGE) })],
  ['11: 2^35 structs', bytes(w => { w.u(1); w.u(HUGE); w.u(7); w.u(0); w.b(0x08) })],
  ['11: 2^35 delete sections', bytes(w => { w.u(0); w.u(HUGE) })],
  ['11: 2^35 delete ranges', bytes(w => { w.u(0); w.u(1); w.u(7); w.u(HUGE); w.u(0); w.u(1) })],
  ['a string of 2^35 bytes', item(0x04, w => w.u(HUGE))],
  ['binary of 2^35 bytes', item(0x03, w => w.u(HUGE))],
  ['2^35 values', item(0x08, w => w.u(HUGE))],
  ['2^35 legacy values', item(0x02, w => w.u(HUGE))],
  ['an array of 2^35', item(0x08, w => { w.u(1); w.b(0x75); w.u(HUGE) })],
  ['an object of 2^35', item(0x08, w => { w.u(1); w.b(0x76); w.u(HUGE) })],
  ['a parent name of 2^35 bytes', section(77, 0, 1, w => { w.b(0x04); w.u(1); w.u(HUGE) }, () => {})],
  ['no bytes at all', new Uint8Array(0)],
  ['half an empty update', hex('00')],
  ['bytes after the end', hex('000000')],
  ['a number without an end', hex('ffffffffffffffffffffffffffffffffffffffff')],
  ['an unknown kind of content', item(0x0b, w => w.u(1))],
  ['an unknown kind of type', item(0x07, w => w.u(99))],
  ['an unknown kind of value', item(0x08, w => { w.u(1); w.b(0x10) })],
  ['an empty string', item(0x04, w => w.s(''))],
  ['no values', item(0x08, w => w.u(0))],
  ['deleted content of no length', item(0x01, w => w.u(0))],
  ['GC of no length', section(77, 0, 1, w => { w.b(0x00); w.u(0) })],
  ['a skip of no length', section(77, 0, 1, w => { w.b(0x0a); w.u(0) })],
  ['a delete range of no length', bytes(w => { w.u(0); w.u(1); w.u(77); w.u(1); w.u(0); w.u(0) })],
  ['a delete range over 2^31', bytes(w => { w.u(0); w.u(1); w.u(77); w.u(1); w.u(1); w.u(2 ** 32) })],
  ['GC over 2^31', section(77, 5, 1, w => { w.b(0x00); w.u(2 ** 31 + 9) })],
  ['a client id above 2^53', bytes(w => { w.u(1); w.u(1); w.b(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f); w.u(0); w.b(0x04); w.u(1); w.s('t'); w.s('x'); w.u(0) })],
  ['text that is not UTF-8', item(0x04, w => { w.u(2); w.b(0xc3, 0x28) })],
  ['text with an encoded surrogate', item(0x04, w => { w.u(3); w.b(0xed, 0xa0, 0x80) })],
  ['an overlong encoding', item(0x04, w => { w.u(2); w.b(0xc0, 0x80) })],
  ['sections in ascending order', bytes(w => {
    w.u(2)
    for (const client of [5, 6]) {
      w.u(1)
      w.u(client)
      w.u(0)
      w.b(0x04)
      w.u(1)
      w.s('t')
      w.s('x')
    }
    w.u(0)
  })],
  ['one client in two sections', bytes(w => {
    w.u(2)
    for (const clock of [0, 1]) {
      w.u(1)
      w.u(5)
      w.u(clock)
      w.b(0x04)
      w.u(1)
      w.s('t')
      w.s('x')
    }
    w.u(0)
  })],
  ['cut off within a struct', hex('01010f0004010474')]
]

/**
 * What may be refused, parked or taken, as the scanner sees it: nothing of it may reach others half understood, and the
 * server has to stay small.
 * @type {[string, Uint8Array[]][]}
 */
export const TOLERATED = [
  ['1: two updates with a hole, the second over the first', [hex('0101f90712080103617272027d027601016b7d0200'), hex('0101f90711080103617272027d027601016b7d0200')]],
  ['1: the same in the other order', [hex('0101f90711080103617272027d027601016b7d0200'), hex('0101f90712080103617272027d027601016b7d0200')]],
  ['4: delete the root of what is not there', [hex('000109010001')]],
  ['7: poison for what re-encodes', [hex('01017272027d027601016b010100')]],
  ['12: a delete section without ranges', [hex('0001f00700')]],
  ['a struct that is its own origin', [section(88, 0, 1, w => { w.b(0x84); w.u(88); w.u(0); w.s('x') })]],
  ['a struct whose parent is itself', [section(88, 0, 1, w => { w.b(0x04); w.u(0); w.u(88); w.u(0); w.s('x') })]],
  ['two structs that wait for each other', [bytes(w => {
    w.u(2)
    for (const [client, other] of [[91, 90], [90, 91]]) {
      w.u(1)
      w.u(client)
      w.u(0)
      w.b(0x84)
      w.u(other)
      w.u(0)
      w.s('x')
    }
    w.u(0)
  })]],
  ['skips only', [section(93, 0, 2, w => { w.b(0x0a); w.u(5); w.b(0x0a); w.u(5) })]],
  ['a skip, then text', [section(94, 0, 2, w => { w.b(0x0a); w.u(5); w.b(0x04); w.u(1); w.s('t'); w.s('x') })]],
  ['GC of what nobody made', [section(95, 0, 1, w => { w.b(0x00); w.u(1000000) })]],
  ['deletes far above the clock', [bytes(w => { w.u(0); w.u(1); w.u(96); w.u(1); w.u(1000); w.u(1000000) })]],
  ['delete ranges that overlap and run backwards', [bytes(w => { w.u(0); w.u(1); w.u(97); w.u(3); for (const [clock, length] of [[50, 10], [0, 55], [52, 1]]) { w.u(clock); w.u(length) } })]],
  ['10,000 clients of one character', [bytes(w => {
    w.u(10000)
    for (let client = 20000; client > 10000; client--) {
      w.u(1)
      w.u(client)
      w.u(0)
      w.b(0x04)
      w.u(1)
      w.s('crowd')
      w.s('x')
    }
    w.u(0)
  })]]
]
