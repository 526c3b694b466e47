/** A plot in a drawing: where it is, and what of the world it shows. */
export interface Plot {
  readonly name: string
  readonly left: number
  readonly top: number
  readonly width: number
  readonly height: number
  readonly x: readonly [number, number]
  readonly y: readonly [number, number]
}

/** The plots of an SVG of ours, in order, in its own units. */
export function plotsIn(svg: string): readonly Plot[] {
  const plots: Plot[] = []
  const offsets: (readonly [number, number])[] = [[0, 0]]
  for (const [tag] of svg.matchAll(/<g\b[^>]*>|<\/g>/g)) {
    if (tag === '</g>') {
      offsets.pop()
      continue
    }
    // One without content.
    if (tag.endsWith('/>')) continue
    const [x, y] = offsets.at(-1)!
    const moved = /transform="translate\(([-\d.]+),([-\d.]+)\)"/.exec(tag)
    offsets.push([x + Number(moved?.[1] ?? 0), y + Number(moved?.[2] ?? 0)])
    const name = attribute(tag, 'data-plot')
    if (name === null) continue
    const [left, top, width, height] = numbers(tag, 'data-place')
    const [from, to] = numbers(tag, 'data-x')
    const [low, high] = numbers(tag, 'data-y')
    plots.push({
      name,
      left: x + left!,
      top: y + top!,
      width: width!,
      height: height!,
      x: [from!, to!],
      y: [low!, high!],
    })
  }
  return plots
}

function attribute(tag: string, name: string): string | null {
  return new RegExp(`${name}="([^"]*)"`).exec(tag)?.[1] ?? null
}

function numbers(tag: string, name: string): readonly number[] {
  return (attribute(tag, name) ?? '').split(' ').map(Number)
}

export function xAt({ left, width, x: [from, to] }: Plot, value: number): number {
  return left + (width * (value - from)) / (to - from)
}

export function yAt({ top, height, y: [low, high] }: Plot, value: number): number {
  return top + height * (1 - (value - low) / (high - low))
}

export function logYAt({ top, height, y: [low, high] }: Plot, value: number): number {
  return top + height * (1 - Math.log(value / low) / Math.log(high / low))
}
