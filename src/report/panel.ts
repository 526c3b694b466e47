import { oneLine } from '../core/plain-text.js'
import { type Colour, paint } from './palette.js'

/** A piece of a picture: what stands in an <svg> of its own or in a stack with others. */
export interface Panel {
  readonly width: number
  readonly height: number
  /** SVG elements, with the origin at the panel's top left corner. */
  readonly elements: string
}

/** Vega's names. */
export type PointShape = 'circle' | 'square' | 'diamond' | 'triangle-up'

/** One thing that a panel shows, for its legend. */
export interface Key {
  readonly mark: 'line' | 'dashes' | 'dots' | 'area' | 'strip' | PointShape
  readonly colour: Colour
  readonly text: string
}

/** Arimo has the widths of Arial and Helvetica: text takes the same place in a browser and in a PNG file. */
export const FONT_FAMILY = "Arimo, Arial, Helvetica, 'Liberation Sans', sans-serif"
export const FONT_SIZE = 12
const TITLE_SIZE = 14
/** How much wider bold text is. */
const BOLD = 1.08
const LINE = 18

/** For the text of HTML and SVG, and for attributes in double quotes; one line, without what XML does not allow. */
export function escaped(text: string): string {
  return oneLine(text)
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;')
}

/** About as wide as Arial draws it, rather more than less. */
export function textWidth(text: string, size: number): number {
  let ems = 0
  for (const character of text) {
    if (/[fijlrtI.,:;|!'()[\]/ -]/.test(character)) ems += 0.33
    else if (/[mwMW%@…→]/.test(character)) ems += 1
    else if (/[A-Z]/.test(character)) ems += 0.72
    else ems += character < '\u2e80' ? 0.57 : 1.05
  }
  return ems * size
}

/** The text, or its beginning and an ellipsis. */
export function fitted(text: string, width: number, size: number): string {
  const line = oneLine(text)
  if (textWidth(line, size) <= width) return line
  const characters = Array.from(line)
  let end = Math.min(characters.length, Math.ceil(width / (0.33 * size)))
  while (end > 0 && textWidth(`${characters.slice(0, end).join('')}…`, size) > width) end--
  return `${characters.slice(0, end).join('')}…`
}

/** The text in two lines at most. */
function wrapped(text: string, width: number, size: number): readonly string[] {
  const line = oneLine(text)
  if (textWidth(line, size) <= width) return [line]
  const words = line.split(' ')
  let first = ''
  while (words[0] !== undefined && textWidth(`${first}${words[0]}`, size) <= width) first += `${words.shift() ?? ''} `
  return first === '' ? [fitted(line, width, size)] : [first.trimEnd(), fitted(words.join(' '), width, size)]
}

export function textElement(
  text: string,
  place: { readonly x: number; readonly y: number; readonly colour?: Colour; readonly size?: number },
  attributes = '',
): string {
  const { x, y, colour = 'ink', size = FONT_SIZE } = place
  return `<text x="${x}" y="${y}" font-size="${size}" fill="${paint(colour)}"${attributes && ` ${attributes}`}>${escaped(text)}</text>`
}

/** A title, what is measured, and the legend, in as many lines as the width asks for. */
export function heading(options: {
  readonly width: number
  readonly title: string
  readonly subtitle: string
  readonly keys: readonly Key[]
}): Panel {
  const { width, subtitle, keys } = options
  const lines = wrapped(options.title, width - 4, TITLE_SIZE * BOLD)
  let y = 15 + LINE * (lines.length - 1)
  let elements = lines
    .map((line, i) => textElement(line, { x: 0, y: 15 + LINE * i, size: TITLE_SIZE }, 'font-weight="700"'))
    .join('')
  if (subtitle !== '') {
    const besideAt = Math.round(textWidth(lines.at(-1) ?? '', TITLE_SIZE * BOLD) + 14)
    const isBeside = besideAt + textWidth(subtitle, FONT_SIZE) <= width
    if (!isBeside) y += LINE
    elements += textElement(fitted(subtitle, width, FONT_SIZE), { x: isBeside ? besideAt : 0, y, colour: 'muted' })
  }
  let x = 0
  if (keys.length > 0) y += LINE + 2
  for (const key of keys) {
    const text = fitted(key.text, width - 28, FONT_SIZE)
    const keyWidth = 28 + textWidth(text, FONT_SIZE)
    if (x > 0 && x + keyWidth > width) {
      x = 0
      y += LINE
    }
    elements += swatch(key, x, y - 4) + textElement(text, { x: x + 24, y })
    x = Math.round(x + keyWidth + 14)
  }
  return { width, height: y + 8, elements }
}

/** @param y - the middle of the swatch */
function swatch({ mark, colour }: Key, x: number, y: number): string {
  const fill = `fill="${paint(colour)}"`
  const line = `<path d="M${x},${y}H${x + 18}" fill="none" stroke="${paint(colour)}"`
  switch (mark) {
    case 'line':
      return `${line} stroke-width="2"/>`
    case 'dashes':
      return `${line} stroke-width="1.5" stroke-dasharray="5 3"/>`
    case 'dots':
      return `${line} stroke-width="1.5" stroke-dasharray="1.5 2.5"/>`
    case 'circle':
      return `<circle cx="${x + 9}" cy="${y}" r="3.5" ${fill}/>`
    case 'square':
      return `<path d="M${x + 6},${y - 3.5}h7v7h-7Z" ${fill}/>`
    case 'diamond':
      return `<path d="M${x + 9},${y - 5}l4,5l-4,5l-4,-5Z" ${fill}/>`
    case 'triangle-up':
      return `<path d="M${x + 9},${y - 4.5}l4.5,8h-9Z" ${fill}/>`
    case 'area':
      return `<rect x="${x}" y="${y - 6}" width="18" height="11" ${fill} fill-opacity="0.4"/>`
    case 'strip':
      return `<rect x="${x}" y="${y - 2}" width="18" height="4" ${fill}/>`
  }
}

/** One under the other, from the left. */
export function stacked(panels: readonly Panel[], gap: number): Panel {
  let height = 0
  let elements = ''
  for (const [i, panel] of panels.entries()) {
    if (i > 0) height += gap
    elements += `<g transform="translate(0,${height})">${panel.elements}</g>`
    height += panel.height
  }
  return { width: Math.max(0, ...panels.map(({ width }) => width)), height, elements }
}

/** @param about - what the picture is, for those who hear it */
export function svgOf(
  { width, height, elements }: Panel,
  {
    about,
    className,
    margin = 0,
    ground = '',
  }: { about: string; className?: string; margin?: number; ground?: string },
): string {
  const size = [width + 2 * margin, height + 2 * margin] as const
  return [
    '<svg xmlns="http://www.w3.org/2000/svg" role="img"',
    className === undefined ? '' : ` class="${className}"`,
    ` aria-label="${escaped(about)}" width="${size[0]}" height="${size[1]}" viewBox="0 0 ${size[0]} ${size[1]}"`,
    ` font-family="${FONT_FAMILY}">`,
    ground === '' ? '' : `<rect width="${size[0]}" height="${size[1]}" fill="${ground}"/>`,
    margin === 0 ? elements : `<g transform="translate(${margin},${margin})">${elements}</g>`,
    '</svg>',
  ].join('')
}
