/** What a person has to know when the connection cannot mend itself, and how to keep their text. */

import type { Editor } from '@tiptap/core'
import type { Failure, SynclineProvider } from '@syncline/client'
import { byId } from './dom.js'

/** Which notice is shown; the page's tests and styles know them by these names. */
type Kind = 'frozen' | 'replaced' | 'denied' | 'closed' | 'read-only'

interface Action {
  readonly id: string
  readonly label: string
  readonly run: () => void
  readonly primary?: true
}

/** Shows a notice for each condition that a retry cannot help. `goOnInCopy` rejects with a reason for a person. */
export function showNotices(provider: SynclineProvider, editor: Editor, name: string, goOnInCopy: () => Promise<void>): void {
  const box = byId('notice')
  const title = byId('notice-title')
  const text = byId('notice-text')
  const actions = byId('notice-actions')

  const hide = (): void => {
    box.hidden = true
    delete box.dataset['kind']
  }
  const show = (kind: Kind, headline: string, message: string, offered: readonly Action[]): void => {
    box.dataset['kind'] = kind
    title.textContent = headline
    text.textContent = message
    actions.replaceChildren(...offered.map(button))
    actions.hidden = offered.length === 0
    box.hidden = false
  }

  const fileName = name.replace(/[^\p{L}\p{N}._-]+/gu, '-')
  const saveText: Action = {
    id: 'notice-export',
    label: 'Download text',
    run: () => {
      download(`${fileName}.html`, page(name, editor.getHTML()), 'text/html')
    },
  }
  const saveUpdate: Action = {
    id: 'notice-export-yjs',
    label: 'Yjs file',
    run: () => {
      download(`${fileName}.yjs`, new Uint8Array(provider.exportLocal()), 'application/octet-stream')
    },
  }
  const copy: Action = {
    id: 'notice-copy',
    label: 'Go on in a copy',
    primary: true,
    run: () => {
      text.textContent = 'Making a copy …'
      goOnInCopy().catch((cause: unknown) => {
        text.textContent = `The copy could not be saved: ${cause instanceof Error ? cause.message : String(cause)}. Download your text.`
        actions.replaceChildren(button(saveText), button(saveUpdate))
      })
    },
  }
  const again: Action = {
    id: 'notice-retry',
    label: 'Try again',
    primary: true,
    run: () => {
      hide()
      provider.connect()
    },
  }
  const reload: Action = {
    id: 'notice-reload',
    label: 'Open the new one',
    primary: true,
    run: () => {
      location.reload()
    },
  }
  /** Nothing to keep where nothing was ever shown. */
  const exports = (): Action[] => (editor.isEmpty ? [] : [saveText, saveUpdate])

  provider.on('rejected', ({ terminal, message, code }) => {
    if (!terminal) return
    const why = `The server refused a change. ${sentence(message || code)} What you wrote from then on is only here, and is not sent.`
    show('frozen', 'Your copy is frozen', why, [copy, ...exports()])
  })
  provider.on('replaced', () => {
    const why = 'The server holds another document under this name now. Your copy is set aside on this page, and nothing of it was merged.'
    show('replaced', 'This document was replaced', why, [reload, ...exports()])
  })
  provider.on('closed', (failure) => {
    if (provider.status === 'denied') show('denied', 'You have no access to this document', reason(failure), [again, ...exports()])
    else show('closed', 'The server ended the connection', reason(failure), [again, ...exports()])
  })
  provider.on('access', ({ access }) => {
    if (provider.frozen) return
    if (access === 'read') show('read-only', 'Read only', 'You may read this document, not change it.', [])
    else hide()
  })
}

function reason(failure: Failure): string {
  return sentence(failure.message || failure.code)
}

/** The server's own words, with a capital and a full stop. */
function sentence(words: string): string {
  const first = words.slice(0, 1).toUpperCase()
  return `${first}${words.slice(1)}${/[.!?]$/.test(words) ? '' : '.'}`
}

function button({ id, label, run, primary }: Action): HTMLButtonElement {
  const element = document.createElement('button')
  element.type = 'button'
  element.className = primary === true ? 'button primary' : 'button'
  element.dataset['testid'] = id
  element.textContent = label
  element.addEventListener('click', run)
  return element
}

/** The text as a page of its own, which every browser and word processor opens. */
function page(name: string, body: string): string {
  const title = document.createElement('title')
  title.textContent = name
  return `<!doctype html>\n<meta charset="utf-8">\n${title.outerHTML}\n${body}\n`
}

function download(fileName: string, content: BlobPart, type: string): void {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(new Blob([content], { type }))
  link.download = fileName
  link.click()
  // Firefox reads the blob a moment later.
  setTimeout(() => {
    URL.revokeObjectURL(link.href)
  }, 10_000)
}
