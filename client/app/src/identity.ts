/** Who the person at this tab is, for the others' eyes. Kept for the life of the tab. */

/** A person as the editor bindings expect it in awareness. */
export interface Person {
  readonly name: string
  /** `#rrggbb`, one of `COLOURS` when it comes from this page. */
  readonly color: string
}

/** Dark enough for white letters on them, and apart from each other in both themes. */
export const COLOURS = {
  Green: '#3f7d5e',
  Blue: '#3b6ea8',
  Violet: '#8256a8',
  Rose: '#b34d6d',
  Rust: '#b5592f',
  Ochre: '#8a6d1f',
  Teal: '#2f7f86',
  Slate: '#5c6670',
} as const

const FIRST = ['Quiet', 'Amber', 'Early', 'Gentle', 'Bright', 'Silver', 'Brisk', 'Mellow', 'Patient', 'Northern']
const SECOND = ['Heron', 'Otter', 'Wren', 'Fox', 'Lark', 'Marten', 'Plover', 'Hare', 'Finch', 'Badger']
const KEY = 'syncline.person'

/** The person of this tab, made up on the first visit. */
export function loadPerson(): Person {
  try {
    const kept: unknown = JSON.parse(sessionStorage.getItem(KEY) ?? 'null')
    if (isPerson(kept)) return kept
  } catch {
    // No storage, or not ours: a new name is fine.
  }
  const person = { name: `${pick(FIRST)} ${pick(SECOND)}`, color: pick(Object.values(COLOURS)) }
  keepPerson(person)
  return person
}

/** Remembers the person for a reload of this tab. */
export function keepPerson(person: Person): void {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(person))
  } catch {
    // Storage is off: the name lasts as long as the page.
  }
}

/** Reads what others say of themselves; undefined when it is not a person. */
export function readPerson(value: unknown): Person | undefined {
  if (!isPerson(value)) return undefined
  // The colour goes into styles, so only a plain one is let in.
  const color = /^#[0-9a-f]{6}$/i.test(value.color) ? value.color : COLOURS.Slate
  return { name: value.name.trim().slice(0, 40) || 'Somebody', color }
}

/** One or two letters for an avatar. */
export function initials(name: string): string {
  const words = name.split(/\s+/).filter((word) => word.length > 0)
  const letters = words.length > 1 ? [words[0], words[words.length - 1]] : [words[0]]
  return letters.map((word) => String.fromCodePoint(word?.codePointAt(0) ?? 32)).join('').trim().toUpperCase()
}

function isPerson(value: unknown): value is Person {
  if (typeof value !== 'object' || value === null) return false
  const { name, color } = value as Record<string, unknown>
  return typeof name === 'string' && typeof color === 'string'
}

function pick<T>(from: readonly T[]): T {
  const chosen = from[Math.floor(Math.random() * from.length)]
  if (chosen === undefined) throw new Error('pick from an empty list')
  return chosen
}
