/** The buttons above the text. */

import type { ChainedCommands, Editor } from '@tiptap/core'

interface Tool {
  readonly label: string
  /** Strokes in a 20 by 20 box. */
  readonly icon: string
  readonly run: (chain: ChainedCommands) => ChainedCommands
  readonly isActive?: (editor: Editor) => boolean
  /** Starts a new group. */
  readonly group?: true
  /** Left out where the screen is narrow; the keyboard still has it. */
  readonly wide?: true
}

const TOOLS: readonly Tool[] = [
  {
    label: 'Bold',
    icon: 'M6.5 4h4a3 3 0 0 1 0 6h-4zM6.5 10h4.8a3 3 0 0 1 0 6H6.5z',
    run: (chain) => chain.toggleBold(),
    isActive: (editor) => editor.isActive('bold'),
  },
  {
    label: 'Italic',
    icon: 'M8.5 4h5M6.5 16h5M11.2 4l-2.4 12',
    run: (chain) => chain.toggleItalic(),
    isActive: (editor) => editor.isActive('italic'),
  },
  {
    label: 'Strikethrough',
    icon: 'M4 10h12M13.5 6.2C13 4.8 11.7 4 10 4 7.9 4 6.5 5.2 6.5 6.9c0 1.3.8 2.3 2.2 3.1M6.3 13.3C6.8 15 8.2 16 10 16c2.2 0 3.7-1.2 3.7-3 0-1.2-.6-2.2-1.7-3',
    run: (chain) => chain.toggleStrike(),
    isActive: (editor) => editor.isActive('strike'),
    wide: true,
  },
  {
    label: 'Code',
    icon: 'M7 6l-4 4 4 4M13 6l4 4-4 4',
    run: (chain) => chain.toggleCode(),
    isActive: (editor) => editor.isActive('code'),
    wide: true,
  },
  {
    label: 'Heading',
    icon: 'M5 4.5v11M12 4.5v11M5 10h7M15 12.2l1.6-1.2v4.8',
    run: (chain) => chain.toggleHeading({ level: 1 }),
    isActive: (editor) => editor.isActive('heading', { level: 1 }),
    group: true,
  },
  {
    label: 'Subheading',
    icon: 'M4 4.5v11M11 4.5v11M4 10h7M14 12.4c.2-1 1-1.5 1.8-1.5.9 0 1.6.6 1.6 1.4 0 1.3-1.5 1.8-3.3 3.5h3.5',
    run: (chain) => chain.toggleHeading({ level: 2 }),
    isActive: (editor) => editor.isActive('heading', { level: 2 }),
  },
  {
    label: 'Bullet list',
    icon: 'M8 5.5h8M8 10h8M8 14.5h8M4 5.5h.01M4 10h.01M4 14.5h.01',
    run: (chain) => chain.toggleBulletList(),
    isActive: (editor) => editor.isActive('bulletList'),
    group: true,
  },
  {
    label: 'Numbered list',
    icon: 'M8.5 5.5H16M8.5 10H16M8.5 14.5H16M3.5 4.5l1-.7v3.7M3.3 11.4c.1-.6.5-.9 1-.9s.9.3.9.8c0 .8-1 1.1-1.9 2.2h2',
    run: (chain) => chain.toggleOrderedList(),
    isActive: (editor) => editor.isActive('orderedList'),
  },
  {
    label: 'Quote',
    icon: 'M4.5 4.5v11M8.5 6.5h7.5M8.5 10h7.5M8.5 13.5h5',
    run: (chain) => chain.toggleBlockquote(),
    isActive: (editor) => editor.isActive('blockquote'),
  },
  {
    label: 'Code block',
    icon: 'M3.5 4h13v12h-13zM8 8l-2 2 2 2M12 8l2 2-2 2',
    run: (chain) => chain.toggleCodeBlock(),
    isActive: (editor) => editor.isActive('codeBlock'),
    wide: true,
  },
  {
    label: 'Undo',
    icon: 'M7 4.5L4 7.5l3 3M4 7.5h7.5a4 4 0 0 1 0 8H8',
    run: (chain) => chain.undo(),
    group: true,
  },
  {
    label: 'Redo',
    icon: 'M13 4.5l3 3-3 3M16 7.5H8.5a4 4 0 0 0 0 8H12',
    run: (chain) => chain.redo(),
  },
]

/** Fills the toolbar and keeps it true to the selection. */
export function createToolbar(element: HTMLElement, editor: Editor): void {
  const buttons = TOOLS.map((tool) => {
    const button = document.createElement('button')
    button.type = 'button'
    button.className = ['tool', tool.group ? 'starts-group' : '', tool.wide ? 'wide-only' : ''].filter(Boolean).join(' ')
    button.title = tool.label
    button.setAttribute('aria-label', tool.label)
    button.append(icon(tool.icon))
    // A click on a button must not take the selection away from the text.
    button.addEventListener('mousedown', (event) => {
      event.preventDefault()
    })
    button.addEventListener('click', () => {
      tool.run(editor.chain().focus()).run()
    })
    element.append(button)
    return { tool, button }
  })
  const refresh = (): void => {
    for (const { tool, button } of buttons) {
      button.disabled = !editor.isEditable
      if (tool.isActive !== undefined) button.setAttribute('aria-pressed', String(tool.isActive(editor)))
    }
  }
  editor.on('transaction', refresh)
  editor.on('update', refresh)
  refresh()
}

function icon(strokes: string): SVGSVGElement {
  const namespace = 'http://www.w3.org/2000/svg'
  const svg = document.createElementNS(namespace, 'svg')
  svg.setAttribute('viewBox', '0 0 20 20')
  svg.setAttribute('aria-hidden', 'true')
  const path = document.createElementNS(namespace, 'path')
  path.setAttribute('d', strokes)
  svg.append(path)
  return svg
}
