import { Resvg } from '@resvg/resvg-js'

export type Rgb = readonly [number, number, number]

export interface Pixels {
  readonly width: number
  readonly height: number
  /** The colour at a place, rounded down to its pixel. */
  at(x: number, y: number): Rgb
}

/** Decodes a PNG file: it is drawn into a picture of its own size. */
export function pixelsOf(png: Uint8Array): Pixels {
  const bytes = Buffer.from(png)
  // The header chunk: width and height.
  const [width, height] = [bytes.readUInt32BE(16), bytes.readUInt32BE(20)]
  const href = `data:image/png;base64,${bytes.toString('base64')}`
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"><image width="${width}" height="${height}" href="${href}"/></svg>`
  const { pixels } = new Resvg(svg, { font: { loadSystemFonts: false } }).render()
  return {
    width,
    height,
    at: (x, y) => {
      const i = 4 * (Math.floor(y) * width + Math.floor(x))
      return [pixels[i]!, pixels[i + 1]!, pixels[i + 2]!]
    },
  }
}

/** From #rrggbb. */
export function rgb(hex: string): Rgb {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16))
  return [r!, g!, b!]
}

/** What a colour over a ground looks like. */
export function blended(over: Rgb, ground: Rgb, opacity: number): Rgb {
  const [r, g, b] = over.map((part, i) => opacity * part + (1 - opacity) * ground[i]!)
  return [r!, g!, b!]
}

/** The greatest difference of a part, from 0 to 255. */
export function difference(a: Rgb, b: Rgb): number {
  return Math.max(...a.map((part, i) => Math.abs(part - b[i]!)))
}
