import type { Pair } from '../../core/pair.js'
import type { EdgeMatches } from '../edge-list.js'
import { el, panel, setAttribute, setText } from './dom.js'
import { count, pairName } from './format.js'
import { ask } from './source.js'

/** How a daemon's edges are shown: `E` in the list, `L` when one is looked at. */
export interface ExplorerOptions<E extends Pair, L extends Pair> {
  /** What stands beside the name. */
  readonly columns: readonly string[]
  readonly cells: (edge: E) => readonly string[]
  readonly isHot: (edge: E) => boolean
  /** What there is to see of one edge. */
  readonly detail: HTMLElement
  readonly showDetail: (edge: L) => void
}

export interface Explorer<E extends Pair> {
  /** The list with its search. */
  readonly list: HTMLElement
  /** The edge that was picked; hidden while there is none. */
  readonly detail: HTMLElement
  /** @param hottest - of all edges; shown unless something is searched for */
  show(hottest: EdgeMatches<E>): void
  /** Asks again for what was searched for and for the edge that was picked. */
  readonly refresh: () => Promise<void>
  readonly pick: (edge: Pair) => void
}

/** So long after the last key the daemon is asked. */
const TYPING_MS = 250
/** A longer text is the name of no edge. */
const MAX_TEXT = '253'

const keyOf = ({ source, destination }: Pair): string => JSON.stringify([source, destination])

export function createExplorer<E extends Pair, L extends Pair>(options: ExplorerOptions<E, L>): Explorer<E> {
  const { columns, cells, isHot, detail, showDetail } = options
  const search = el('input', {
    type: 'search',
    id: 'search',
    maxlength: MAX_TEXT,
    autocomplete: 'off',
    spellcheck: 'false',
    placeholder: 'Part of a name',
  })
  const found = el('p', { class: 'note', role: 'status' })
  const body = el('tbody')
  const list = panel(
    'edges',
    'Hottest edges',
    el('div', { class: 'search' }, el('label', { for: 'search' }, 'Search source and destination'), search),
    found,
    el(
      'div',
      { class: 'scroll edges' },
      el(
        'table',
        {},
        el('caption', { class: 'unseen' }, 'Edges, the hottest first. The name of an edge shows its chart.'),
        el('thead', {}, el('tr', {}, ...['Edge', ...columns].map((name) => el('th', { scope: 'col' }, name)))),
        body,
      ),
    ),
  )
  const heading = list.querySelector('h2')

  const picked = el('h2', { id: 'edge-title', tabindex: '-1' })
  const close = el('button', { type: 'button', class: 'close' }, 'Close')
  const trouble = el('p', { class: 'note', role: 'status' })
  const chosen = el(
    'section',
    { class: 'panel panel-edge', 'aria-labelledby': 'edge-title' },
    el('div', { class: 'panel-head' }, picked, close),
    trouble,
    detail,
  )
  chosen.hidden = true

  const rows = new Map<string, Row>()
  let hottest: EdgeMatches<E> = { edges: [], leftOut: 0 }
  let matches: EdgeMatches<E> | null = null
  let selected: Pair | null = null
  let asked = 0
  let troubled: string | null = null

  const draw = (): void => {
    const text = search.value.trim()
    const { edges, leftOut } = text === '' ? hottest : (matches ?? hottest)
    setText(heading ?? found, text === '' ? 'Hottest edges' : 'Edges found')
    setText(found, troubled ?? foundWords({ edges, leftOut, isSearch: text !== '', isAnswered: matches !== null }))
    const key = selected === null ? null : keyOf(selected)
    const focused = document.activeElement
    const drawn = edges.map((edge) => {
      const own = keyOf(edge)
      const row = rows.get(own) ?? createRow(edge, columns, () => pick(edge))
      rows.set(own, row)
      row.show(cells(edge), { isHot: isHot(edge), isPicked: own === key })
      return row.element
    })
    const isSame = drawn.length === body.childElementCount && drawn.every((row, i) => body.children[i] === row)
    if (isSame) return
    body.replaceChildren(...drawn)
    // What was moved has lost the focus.
    if (focused instanceof HTMLElement && body.contains(focused)) focused.focus({ preventScroll: true })
    const kept = new Set(edges.map(keyOf))
    for (const own of rows.keys()) if (!kept.has(own)) rows.delete(own)
  }

  const find = async (): Promise<void> => {
    const text = search.value.trim()
    if (text === '') {
      matches = null
      troubled = null
      draw()
      return
    }
    const turn = ++asked
    const answer = await ask<EdgeMatches<E>>(`api/edges?${new URLSearchParams({ search: text }).toString()}`)
    // Of answers that overtake each other the last question's holds.
    if (turn !== asked || search.value.trim() !== text) return
    if (answer.kind === 'answer') matches = answer.value
    troubled = answer.kind === 'answer' ? null : `Not searched: ${answer.because}.`
    draw()
  }

  const look = async (): Promise<void> => {
    const edge = selected
    if (edge === null) return
    const { source, destination } = edge
    const answer = await ask<L>(`api/edge?${new URLSearchParams({ source, destination }).toString()}`)
    if (selected !== edge) return
    setText(trouble, answer.kind === 'answer' ? '' : `What is shown is not of now: ${answer.because}.`)
    detail.classList.toggle('stale', answer.kind !== 'answer')
    if (answer.kind !== 'answer') return
    detail.hidden = false
    showDetail(answer.value)
  }

  const pick = (edge: Pair): void => {
    const { source, destination } = edge
    selected = { source, destination }
    setText(picked, pairName(edge))
    setText(trouble, 'Asking the daemon.')
    detail.hidden = true
    chosen.hidden = false
    draw()
    picked.focus()
    void look()
  }

  close.addEventListener('click', () => {
    const row = selected === null ? undefined : rows.get(keyOf(selected))
    selected = null
    chosen.hidden = true
    draw()
    if (row?.element.isConnected === true) row.button.focus()
    else search.focus()
  })
  let typing: number | undefined
  search.addEventListener('input', () => {
    clearTimeout(typing)
    typing = setTimeout(() => void find(), TYPING_MS)
  })

  return {
    list,
    detail: chosen,
    show: (next) => {
      hottest = next
      draw()
    },
    refresh: async () => {
      await Promise.all([search.value.trim() === '' ? null : find(), look()])
    },
    pick,
  }
}

function foundWords({
  edges,
  leftOut,
  isSearch,
  isAnswered,
}: {
  readonly edges: readonly Pair[]
  readonly leftOut: number
  readonly isSearch: boolean
  readonly isAnswered: boolean
}): string {
  if (isSearch && !isAnswered) return 'Searching.'
  const all = edges.length + leftOut
  if (all === 0) return isSearch ? 'No edge has such a name.' : 'There is none.'
  return leftOut === 0 ? `${count(all, 'edge')}.` : `The ${edges.length} hottest of ${count(all, 'edge')}.`
}

interface Row {
  readonly element: HTMLElement
  readonly button: HTMLElement
  show(texts: readonly string[], state: { readonly isHot: boolean; readonly isPicked: boolean }): void
}

function createRow(edge: Pair, columns: readonly string[], pick: () => void): Row {
  const button = el('button', { type: 'button', class: 'pick' }, pairName(edge))
  const values = columns.map((column) => el('td', { 'data-column': column }))
  const element = el('tr', {}, el('th', { scope: 'row' }, button), ...values)
  element.addEventListener('click', pick)
  return {
    element,
    button,
    show: (texts, { isHot, isPicked }) => {
      values.forEach((cell, i) => setText(cell, texts[i] ?? ''))
      element.classList.toggle('hot', isHot)
      setAttribute(button, 'aria-pressed', String(isPicked))
    },
  }
}
