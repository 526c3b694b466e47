import { htmlOf } from './html.js'
import { markdownOf } from './markdown.js'
import { pictureFiles, picturesOf, sheetsOf, WIDTHS } from './pictures.js'
import { pngOf } from './png.js'
import type { Report } from './report.js'

/** Content by file name: report.html, report.md and the PNG files that it names. */
export type ReportFiles = Readonly<Record<string, string | Uint8Array>>

/**
 * Draws and writes out a report: of any data, also of none. What is missing is said, never drawn as a zero, and names from
 * outside are text wherever they stand.
 */
export async function renderReport(report: Report): Promise<ReportFiles> {
  const wide = await picturesOf(report, WIDTHS.wide)
  const narrow = await picturesOf(report, WIDTHS.narrow)
  const files: Record<string, string | Uint8Array> = {}
  for (const [name, sheet] of sheetsOf(report, wide)) files[name] = await pngOf(sheet)
  files['report.md'] = markdownOf(report, pictureFiles(report, wide))
  files['report.html'] = await htmlOf(report, { wide, narrow })
  return files
}
