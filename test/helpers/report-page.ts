import { htmlOf } from '../../src/report/html.js'
import { picturesOf, WIDTHS } from '../../src/report/pictures.js'
import type { Report } from '../../src/report/report.js'

/** report.html alone, without the time that the PNG files take. */
export async function pageOf(report: Report): Promise<string> {
  return htmlOf(report, {
    wide: await picturesOf(report, WIDTHS.wide),
    narrow: await picturesOf(report, WIDTHS.narrow),
  })
}
