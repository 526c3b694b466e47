import type { Pair } from '../../core/pair.js'
import type { Suspect } from '../../core/suspect.js'
import type { MappedEdge } from '../mesh-incident-page.js'
import { el, setText } from './dom.js'
import { count, number, pairName } from './format.js'
import { type Box, BOX_WIDTH, layOut, type Link } from './map-layout.js'

export interface MeshMap {
  readonly element: HTMLElement
  show(map: Mapped): void
}

export interface Mapped {
  /** The hottest first. */
  readonly edges: readonly MappedEdge[]
  /** How many edges the component has. */
  readonly total: number
  readonly suspect: Suspect | null
}

const SVG = 'http://www.w3.org/2000/svg' as const
/** What fits into a box. */
const MAX_LETTERS = 20
const ARROW = 8
/** Smaller than this the names cannot be read: it scrolls. */
const LEAST_SCALE = 0.75
/** Width of a line at an accumulator of 0, and what each unit adds. */
const THINNEST = 1.5
const WIDER = 0.12
const WIDEST = 4

/** A component as a drawing, and the same edges in words: who cannot see or point at the one uses the other. */
export function createMeshMap(pick: (edge: Pair) => void): MeshMap {
  const drawing = el('div', { class: 'scroll map' })
  const caption = el('p', { class: 'note map-caption' })
  const list = el('ol', { class: 'map-list' })
  const words = el('details', { class: 'values' }, el('summary', {}, 'The map in words'), list)
  let drawn = ''
  return {
    element: el('div', {}, caption, drawing, words),
    show: (map) => {
      const told = JSON.stringify(map)
      if (told === drawn) return
      const isFirst = drawn === ''
      drawn = told
      setText(caption, captionOf(map))
      const scrolled = drawing.scrollLeft
      drawing.replaceChildren(draw(map, pick))
      // On a narrow screen downstream is what is seen first: there the cause is.
      drawing.scrollLeft = isFirst ? drawing.scrollWidth : scrolled
      const focused = [...list.querySelectorAll('button')].indexOf(document.activeElement as HTMLButtonElement)
      list.replaceChildren(...map.edges.map((edge) => el('li', {}, edgeButton(edge, pick), edgeWords(edge, map))))
      if (focused !== -1) list.querySelectorAll('button')[focused]?.focus()
    },
  }
}

function edgeButton(edge: Pair, pick: (edge: Pair) => void): HTMLElement {
  const button = el('button', { type: 'button', class: 'pick' }, pairName(edge))
  button.addEventListener('click', () => pick(edge))
  return button
}

function edgeWords(edge: MappedEdge, { suspect }: Mapped): string {
  const { accumulator, hot, source, destination } = edge
  const suspected = isSuspected(edge, suspect)
    ? ', the suspected way'
    : suspect?.kind === 'service' && (suspect.name === source || suspect.name === destination)
      ? `, ${suspect.name === source ? 'from' : 'to'} the suspect`
      : ''
  return ` ${number(accumulator)}${hot ? ', hot' : ', warm'}${suspected}`
}

function isSuspected({ source, destination }: Pair, suspect: Suspect | null): boolean {
  return suspect?.kind === 'between' && suspect.source === source && suspect.destination === destination
}

function captionOf({ edges, total, suspect }: Mapped): string {
  const names = new Set(edges.flatMap(({ source, destination }) => [source, destination]))
  const how = total > edges.length ? `The ${edges.length} hottest of ${count(total, 'edge')}` : count(total, 'edge')
  const missing =
    suspect?.kind === 'service' && !names.has(suspect.name)
      ? ` The suspect, ${suspect.name}, is on none of them.`
      : suspect?.kind === 'between' && !edges.some((edge) => isSuspected(edge, suspect))
        ? ` The suspected way, ${pairName(suspect)}, is none of them.`
        : ''
  return `${how} between ${count(names.size, 'service')}; thicker is hotter.${missing}`
}

function draw(map: Mapped, pick: (edge: Pair) => void): SVGElement {
  const { edges, suspect } = map
  const { width, height, boxes, links } = layOut(edges)
  const svg = make('svg', {
    viewBox: `0 0 ${width} ${height}`,
    role: 'img',
    'aria-label': `Map of the component: ${captionOf(map)} The same edges are listed below it.`,
  })
  // As large as the page's own letters are.
  svg.style.setProperty('width', `${width / 16}rem`)
  svg.style.setProperty('min-width', `${LEAST_SCALE * width}px`)
  // Coolest first, so that the hottest are on top.
  for (const link of links.toSorted((a, b) => b.edge - a.edge)) {
    const edge = edges[link.edge]
    if (edge !== undefined) svg.append(line(link, edge, { isSuspect: isSuspected(edge, suspect), pick }))
  }
  for (const box of boxes) svg.append(boxOf(box, suspect?.kind === 'service' && suspect.name === box.name))
  return svg
}

function line(
  { path, tip }: Link,
  edge: MappedEdge,
  { isSuspect, pick }: { readonly isSuspect: boolean; readonly pick: (edge: Pair) => void },
): SVGElement {
  const { accumulator, hot } = edge
  const strokeWidth = Math.min(WIDEST, THINNEST + WIDER * accumulator)
  const back = (tip.fromLeft ? -1 : 1) * (ARROW + strokeWidth / 2)
  const half = ARROW / 2 + strokeWidth / 3
  const group = make('g', { class: `map-edge${hot ? ' hot' : ''}${isSuspect ? ' suspected' : ''}` })
  group.append(
    title(
      `${pairName(edge)}: accumulator ${number(accumulator)}${hot ? ', hot' : ''}${isSuspect ? ', suspected' : ''}`,
    ),
    // Wide and invisible, so that a finger finds it.
    make('path', { d: path, class: 'map-touch' }),
    make('path', { d: path, class: 'map-line', 'stroke-width': String(strokeWidth) }),
    make('path', { class: 'map-tip', d: `M${tip.x},${tip.y}l${back},${-half}v${2 * half}z` }),
  )
  group.addEventListener('click', () => pick(edge))
  return group
}

function boxOf({ name, x, y, height }: Box, isSuspect: boolean): SVGElement {
  const group = make('g', { class: `map-box${isSuspect ? ' suspected' : ''}` })
  const text = make('text', { x: String(x + BOX_WIDTH / 2), y: String(y), 'text-anchor': 'middle', dy: '0.35em' })
  text.textContent = shortened(name)
  group.append(
    title(isSuspect ? `${name}, the suspect` : name),
    make('rect', {
      x: String(x),
      y: String(y - height / 2),
      width: String(BOX_WIDTH),
      height: String(height),
      rx: '6',
    }),
    text,
  )
  return group
}

const SEGMENTER = new Intl.Segmenter()

/** The end is what differs in names of one kind: it is kept, too. */
function shortened(name: string): string {
  const letters = Array.from(SEGMENTER.segment(name), ({ segment }) => segment)
  if (letters.length <= MAX_LETTERS) return name
  return `${letters.slice(0, MAX_LETTERS - 9).join('')}…${letters.slice(-8).join('')}`
}

function title(text: string): SVGElement {
  const made = make('title', {})
  made.textContent = text
  return made
}

function make(tag: string, attributes: Readonly<Record<string, string>>): SVGElement {
  const made = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  return made
}
