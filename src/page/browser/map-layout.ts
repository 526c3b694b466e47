/*
 * Places the services of a hot component from left to right, callers before who they call, after Sugiyama, Tagawa & Toda (IEEE
 * Trans. Syst. Man Cybern. 11, 1981): cycles are broken at their coolest edge, each service comes one layer after the last of
 * its callers, and the layers are put in order by the mean place of their neighbours. The same edges give the same picture.
 */
import type { Pair } from '../../core/pair.js'

/** Pixels; `y` is of the middle. */
export interface Box {
  readonly name: string
  readonly x: number
  readonly y: number
  readonly height: number
}

/** A line from the one box to the other. */
export interface Link {
  /** The edge's place among those given. */
  readonly edge: number
  readonly path: string
  /** Where it ends, and whether it comes there from the left. */
  readonly tip: { readonly x: number; readonly y: number; readonly fromLeft: boolean }
}

export interface MapLayout {
  readonly width: number
  readonly height: number
  readonly boxes: readonly Box[]
  readonly links: readonly Link[]
}

export const BOX_WIDTH = 180
const BOX_HEIGHT = 26
/** What each line more makes a box higher, so that its ends lie side by side. */
const PORT_HEIGHT = 10
const ROW_GAP = 8
const COLUMN_GAP = 76
/** A line that passes a layer keeps so much room there. */
const PASSAGE_HEIGHT = 8
const MARGIN = 10
const SWEEPS = 4

/** A service, or the passage of a line through a layer. */
interface Node {
  readonly name: string | null
  layer: number
  /** From 0 to 1 within its layer. */
  place: number
  readonly before: Node[]
  readonly after: Node[]
  x: number
  y: number
  height: number
}

/** The nodes from left to right. */
interface Chain {
  readonly edge: number
  readonly nodes: readonly Node[]
  readonly isBackward: boolean
}

/** @param edges - the hottest first */
export function layOut(edges: readonly Pair[]): MapLayout {
  const services = new Map<string, Node>()
  const serviceOf = (name: string): Node => {
    const known = services.get(name)
    if (known !== undefined) return known
    const made = node(name)
    services.set(name, made)
    return made
  }
  const ends = edges.map(({ source, destination }) => [serviceOf(source), serviceOf(destination)] as const)
  const ways = withoutCycles(ends)
  setLayers([...services.values()], ways)
  const chains = chainsOf(ways)
  const layers = layersOf(new Set([...services.values(), ...chains.flatMap(({ nodes }) => nodes)]))
  for (const one of services.values()) {
    one.height = BOX_HEIGHT + PORT_HEIGHT * (Math.max(1, one.before.length, one.after.length) - 1)
  }
  order(layers)
  const height = place(layers)
  const boxes = [...services].map(([name, { x, y, height: own }]): Box => ({ name, x, y, height: own }))
  const width = 2 * MARGIN + layers.length * BOX_WIDTH + Math.max(0, layers.length - 1) * COLUMN_GAP
  const loops = ends.flatMap(([source, destination], edge) => (source === destination ? [loop(source, edge)] : []))
  return {
    width: loops.length > 0 ? width + COLUMN_GAP / 2 : width,
    height,
    boxes,
    links: [...linksOf(chains), ...loops],
  }
}

function node(name: string | null, layer = 0): Node {
  return { name, layer, place: 0, before: [], after: [], x: 0, y: 0, height: PASSAGE_HEIGHT }
}

interface Way {
  readonly edge: number
  readonly from: Node
  readonly to: Node
  readonly isBackward: boolean
}

/** Turns each edge round that closes a cycle with hotter ones. A service that calls itself has no way to go. */
function withoutCycles(ends: readonly (readonly [Node, Node])[]): readonly Way[] {
  const next = new Map<Node, Node[]>()
  const leadsTo = (from: Node, to: Node, seen = new Set<Node>()): boolean => {
    if (from === to) return true
    if (seen.has(from)) return false
    seen.add(from)
    return (next.get(from) ?? []).some((each) => leadsTo(each, to, seen))
  }
  return ends.flatMap(([source, destination], edge): readonly Way[] => {
    if (source === destination) return []
    const isBackward = leadsTo(destination, source)
    const [from, to] = isBackward ? [destination, source] : [source, destination]
    next.set(from, [...(next.get(from) ?? []), to])
    return [{ edge, from, to, isBackward }]
  })
}

function setLayers(services: readonly Node[], ways: readonly Way[]): void {
  for (let isMoving = true; isMoving;) {
    isMoving = false
    for (const { from, to } of ways) {
      if (to.layer > from.layer) continue
      to.layer = from.layer + 1
      isMoving = true
    }
  }
  // Who is called by nobody stands next to who it calls.
  for (const service of services) {
    if (ways.some(({ to }) => to === service)) continue
    const called = ways.filter(({ from }) => from === service).map(({ to }) => to.layer)
    if (called.length > 0) service.layer = Math.min(...called) - 1
  }
}

function chainsOf(ways: readonly Way[]): readonly Chain[] {
  return ways.map(({ edge, from, to, isBackward }) => {
    const passages = Array.from({ length: to.layer - from.layer - 1 }, (_, i) => node(null, from.layer + 1 + i))
    const nodes = [from, ...passages, to]
    nodes.forEach((one, i) => {
      const following = nodes[i + 1]
      if (following === undefined) return
      one.after.push(following)
      following.before.push(one)
    })
    return { edge, nodes, isBackward }
  })
}

function layersOf(nodes: ReadonlySet<Node>): readonly Node[][] {
  const layers: Node[][] = []
  for (const one of nodes) (layers[one.layer] ??= []).push(one)
  return layers
}

function order(layers: readonly Node[][]): void {
  const number = (layer: readonly Node[]): void => {
    layer.forEach((one, i) => (one.place = (i + 0.5) / layer.length))
  }
  layers.forEach(number)
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const isForward = sweep % 2 === 0
    for (const layer of isForward ? layers : layers.toReversed()) {
      const wanted = new Map(layer.map((one) => [one, mean(isForward ? one.before : one.after) ?? one.place]))
      layer.sort((a, b) => (wanted.get(a) ?? 0) - (wanted.get(b) ?? 0))
      number(layer)
    }
  }
}

function mean(nodes: readonly Node[]): number | null {
  return nodes.length === 0 ? null : nodes.reduce((sum, { place: at }) => sum + at, 0) / nodes.length
}

/** @returns the height of the whole */
function place(layers: readonly Node[][]): number {
  const heightOf = (layer: readonly Node[]): number =>
    layer.reduce((sum, { height }) => sum + height + ROW_GAP, -ROW_GAP)
  const inner = Math.max(0, ...layers.map(heightOf))
  layers.forEach((layer, i) => {
    let top = MARGIN + (inner - heightOf(layer)) / 2
    for (const one of layer) {
      one.x = MARGIN + i * (BOX_WIDTH + COLUMN_GAP)
      one.y = top + one.height / 2
      top += one.height + ROW_GAP
    }
  })
  return inner + 2 * MARGIN
}

function linksOf(chains: readonly Chain[]): readonly Link[] {
  /** Where on a box's side the line to a neighbour begins: in the order of the neighbours, so that lines do not cross there. */
  const port = (at: Node, side: 'before' | 'after', chain: Chain): number => {
    const own = chains.filter(({ nodes }) => (side === 'after' ? nodes[0] : nodes.at(-1)) === at)
    const other = ({ nodes }: Chain): number => (side === 'after' ? nodes[1] : nodes.at(-2))?.y ?? 0
    const sorted = own.toSorted((a, b) => other(a) - other(b) || a.edge - b.edge)
    return at.y + PORT_HEIGHT * (sorted.indexOf(chain) - (sorted.length - 1) / 2)
  }
  return chains.map((chain) => {
    const { nodes, edge, isBackward } = chain
    const last = nodes.length - 1
    const points = nodes.flatMap((one, i): readonly (readonly [number, number])[] => {
      if (i === 0) return [[one.x + BOX_WIDTH, port(one, 'after', chain)]]
      if (i === last) return [[one.x, port(one, 'before', chain)]]
      return [
        [one.x, one.y],
        [one.x + BOX_WIDTH, one.y],
      ]
    })
    const [x = 0, y = 0] = (isBackward ? points[0] : points.at(-1)) ?? []
    return { edge, path: curve(points), tip: { x, y, fromLeft: !isBackward } }
  })
}

/** Leaves and arrives level. */
function curve(points: readonly (readonly [number, number])[]): string {
  const [[startX, startY] = [0, 0], ...rest] = points
  let [x, y] = [startX, startY]
  const parts = rest.map(([toX, toY]) => {
    const middle = (x + toX) / 2
    const part = `C${middle},${y} ${middle},${toY} ${toX},${toY}`
    ;[x, y] = [toX, toY]
    return part
  })
  return `M${startX},${startY}${parts.join('')}`
}

/** Of a service that calls itself. */
function loop({ x, y, height }: Node, edge: number): Link {
  const right = x + BOX_WIDTH
  const [top, foot] = [y - height / 4, y + height / 4]
  const path = `M${right},${top}C${right + COLUMN_GAP / 2},${top - 12} ${right + COLUMN_GAP / 2},${foot + 12} ${right},${foot}`
  return { edge, path, tip: { x: right, y: foot, fromLeft: false } }
}
