import { renderAsync } from '@resvg/resvg-js'

import { FONT_FILES } from './fonts.js'
import { inTheme, PALETTE } from './palette.js'
import type { Sheet } from './pictures.js'

/** Pixels of a PNG file for one of the SVG, so that text is sharp on paper and on good screens. */
const PNG_SCALE = 2

/** A picture of many pairs gets fewer pixels for each rather than hundreds of megabytes on the way. */
const MAX_PIXELS_HIGH = 12_000

/** On a light ground, with our own font. */
export async function pngOf({ svg, height }: Sheet): Promise<Uint8Array> {
  const image = await renderAsync(inTheme(svg, 'light'), {
    background: PALETTE.paper.light,
    fitTo: { mode: 'zoom', value: Math.min(PNG_SCALE, MAX_PIXELS_HIGH / height) },
    font: { loadSystemFonts: false, fontFiles: [...FONT_FILES], defaultFontFamily: 'Arimo', sansSerifFamily: 'Arimo' },
  })
  return image.asPng()
}
