/** The rich-text editor: Tiptap's open-source parts on a Yjs fragment, with everybody's cursors. */

import { Editor } from '@tiptap/core'
import { Collaboration } from '@tiptap/extension-collaboration'
import { CollaborationCaret } from '@tiptap/extension-collaboration-caret'
import { Placeholder } from '@tiptap/extensions'
import { StarterKit } from '@tiptap/starter-kit'
import type { SynclineProvider } from '@syncline/client'
import type { Person } from './identity.js'
import { readPerson } from './identity.js'

/** Makes the editor. It is read-only until the document is there. */
export function createEditor(element: HTMLElement, provider: SynclineProvider, person: Person): Editor {
  return new Editor({
    element,
    // The rules that Tiptap would inject are in text.css, so the page needs no inline styles.
    injectCSS: false,
    editable: false,
    editorProps: {
      attributes: { 'aria-label': 'Document text', role: 'textbox', 'aria-multiline': 'true', spellcheck: 'true' },
    },
    extensions: [
      // Undo belongs to Collaboration: it must not take back what others wrote.
      StarterKit.configure({ undoRedo: false, link: { openOnClick: false } }),
      Placeholder.configure({ placeholder: 'Write something. Everybody here sees it at once.' }),
      Collaboration.configure({ document: provider.doc }),
      CollaborationCaret.configure({
        provider,
        user: { ...person },
        render: renderCaret,
        selectionRender: (user) => ({
          class: 'others-selection',
          style: `--person: ${readPerson(user)?.color ?? 'transparent'}`,
        }),
      }),
    ],
  })
}

function renderCaret(user: Record<string, unknown>): HTMLElement {
  const person = readPerson(user)
  const caret = document.createElement('span')
  caret.className = 'others-caret'
  caret.dataset['testid'] = 'caret'
  if (person === undefined) return caret
  caret.style.setProperty('--person', person.color)
  const label = document.createElement('span')
  label.className = 'others-caret-name'
  label.textContent = person.name
  caret.append(label)
  return caret
}
