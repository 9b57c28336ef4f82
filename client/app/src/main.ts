/** The demo: one document, everybody who has it open, and a light that tells what is saved. */

import './style.css'
import './text.css'
import { SynclineProvider } from '@syncline/client'
import type { Status, SynclineProviderOptions } from '@syncline/client'
import * as Y from 'yjs'
import { copyName, saveCopy } from './copy.js'
import { documentName, shareUrl } from './document-name.js'
import { byId } from './dom.js'
import { createEditor } from './editor.js'
import { loadPerson } from './identity.js'
import { showNotices } from './notice.js'
import { showPeople } from './people.js'
import { createToolbar } from './toolbar.js'
import { showWire } from './wire.js'

/** Where the text stays as it is until a person decides. */
const FINAL: readonly Status[] = ['replaced', 'denied', 'closed']

/** The person goes where the same text is saved: nothing to ask. */
let isLeaving = false

const name = documentName(location)
byId('doc-name').textContent = name
document.title = `${name} · Syncline`

const person = loadPerson()
const provider = new SynclineProvider(location.origin, name, new Y.Doc(), forcedCarrier(location))
provider.awareness.setLocalStateField('user', person)

const editor = createEditor(byId('editor'), provider, person)
createToolbar(byId('toolbar'), editor)
showWire(provider)
showNotices(provider, editor, name, async () => {
  const other = copyName(name)
  await saveCopy(provider, other)
  isLeaving = true
  location.assign(shareUrl(location, other))
})
showPeople(provider, person, (changed) => {
  editor.commands.updateUser({ ...changed })
})
share()

// Nobody writes into a document that they have not seen yet; after that, an outage stops nobody.
void provider.whenSynced.then(() => {
  const refreshEditable = (): void => {
    editor.setEditable(provider.access === 'write' && !provider.frozen && !FINAL.includes(provider.status))
  }
  provider.on('status', refreshEditable)
  provider.on('access', refreshEditable)
  provider.on('rejected', refreshEditable)
  refreshEditable()
  editor.commands.focus('end')
})

// What is only here would be lost with the tab: the browser asks, as it would for any unsaved work.
addEventListener('beforeunload', (event) => {
  if (provider.pending > 0 && !isLeaving) event.preventDefault()
})

/** `?carrier=websocket` or `?carrier=webtransport` leaves the page no choice. */
function forcedCarrier({ search }: Location): SynclineProviderOptions {
  const carrier = new URLSearchParams(search).get('carrier')
  return carrier === 'websocket' || carrier === 'webtransport' ? { carriers: [carrier] } : {}
}

function share(): void {
  const button = byId('share', HTMLButtonElement)
  const text = byId('share-text')
  let timer: ReturnType<typeof setTimeout> | undefined
  button.addEventListener('click', () => {
    void copy(shareUrl(location, name)).then((copied) => {
      text.textContent = copied ? 'Link copied' : 'Copy failed'
      clearTimeout(timer)
      timer = setTimeout(() => {
        text.textContent = 'Share'
      }, 2_000)
    })
  })
}

async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return false
  }
}
