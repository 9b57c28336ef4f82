/** Who is here: one avatar each, oneself first. A click on one's own changes name and colour. */

import type { SynclineProvider } from '@syncline/client'
import { byId } from './dom.js'
import type { Person } from './identity.js'
import { COLOURS, initials, keepPerson, readPerson } from './identity.js'

/** More than these become a number. */
const N_SHOWN_MAX = 5

/** Shows everybody and lets the person at this tab change who they are. */
export function showPeople(provider: SynclineProvider, me: Person, rename: (person: Person) => void): void {
  const list = byId('people')
  let self = me
  let drawn = ''

  const draw = (): void => {
    const people = [...provider.awareness.getStates()]
      .map(([id, state]) => ({ id, person: readPerson((state as Record<string, unknown>)['user']) }))
      .filter((entry): entry is { id: number; person: Person } => entry.person !== undefined)
      .sort((a, b) => Number(b.id === provider.awareness.clientID) - Number(a.id === provider.awareness.clientID) || a.id - b.id)
    // Every move of a cursor comes by here; an avatar replaced under the mouse loses its click.
    const wanted = JSON.stringify(people)
    if (wanted === drawn) return
    drawn = wanted
    const items = people.slice(0, N_SHOWN_MAX).map(({ id, person }) => {
      const isSelf = id === provider.awareness.clientID
      return avatar(person, isSelf, () => {
        edit(self, (changed) => {
          self = changed
          keepPerson(changed)
          rename(changed)
        })
      })
    })
    if (people.length > N_SHOWN_MAX) items.push(more(people.length - N_SHOWN_MAX))
    list.replaceChildren(...items)
  }

  provider.awareness.on('change', draw)
  draw()
}

function avatar(person: Person, isSelf: boolean, onClick: () => void): HTMLLIElement {
  const item = document.createElement('li')
  item.dataset['testid'] = 'person'
  item.dataset['name'] = person.name
  const face = document.createElement(isSelf ? 'button' : 'span')
  face.className = 'avatar'
  face.style.setProperty('--person', person.color)
  face.textContent = initials(person.name)
  face.title = isSelf ? `${person.name} (you): change name or colour` : person.name
  face.setAttribute('aria-label', face.title)
  if (face instanceof HTMLButtonElement) {
    face.type = 'button'
    face.dataset['testid'] = 'self'
    face.addEventListener('click', onClick)
  } else {
    face.setAttribute('role', 'img')
  }
  item.append(face)
  return item
}

function more(n: number): HTMLLIElement {
  const item = document.createElement('li')
  const face = document.createElement('span')
  face.className = 'avatar more'
  face.textContent = `+${n}`
  item.append(face)
  return item
}

function edit(person: Person, save: (person: Person) => void): void {
  const dialog = byId('me', HTMLDialogElement)
  const field = byId('me-name', HTMLInputElement)
  const colours = byId('me-colours')
  field.value = person.name
  colours.replaceChildren(
    ...Object.entries(COLOURS).map(([name, colour]) => {
      const label = document.createElement('label')
      label.className = 'swatch'
      label.style.setProperty('--person', colour)
      const input = document.createElement('input')
      input.type = 'radio'
      input.name = 'colour'
      input.value = colour
      input.checked = colour === person.color
      input.setAttribute('aria-label', name)
      label.title = name
      label.append(input)
      return label
    }),
  )
  dialog.onclose = (): void => {
    if (dialog.returnValue !== 'save') return
    const chosen = colours.querySelector<HTMLInputElement>('input:checked')?.value ?? person.color
    save({ name: field.value.trim() || person.name, color: chosen })
  }
  // A click beside the sheet lands on the dialog itself.
  dialog.onclick = (event): void => {
    if (event.target === dialog) dialog.close('save')
  }
  dialog.returnValue = ''
  dialog.showModal()
  field.select()
}
