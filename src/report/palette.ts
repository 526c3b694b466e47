/** What is drawn in colour, and how on a light and on a dark ground. */
interface Shades {
  readonly light: string
  readonly dark: string
}

/**
 * Told apart by colour-blind readers: the hues are Okabe & Ito's (Color Universal Design, 2008), darker or lighter where text
 * or a thin line would fall short of WCAG 2 AA.
 */
export const PALETTE = {
  paper: { light: '#ffffff', dark: '#14181d' },
  ink: { light: '#1b1f24', dark: '#e8eaed' },
  muted: { light: '#57606a', dark: '#a6adb5' },
  grid: { light: '#e3e6ea', dark: '#2c333b' },
  measured: { light: '#0b3d66', dark: '#b5dcff' },
  expected: { light: '#0072b2', dark: '#56b4e9' },
  band: { light: '#56b4e9', dark: '#2f7fb3' },
  anomaly: { light: '#d55e00', dark: '#ff8c3b' },
  fault: { light: '#cc79a7', dark: '#cc79a7' },
  transient: { light: '#8a939c', dark: '#8a939c' },
  heat: { light: '#9c4a00', dark: '#e59a52' },
  sev2: { light: '#e69f00', dark: '#e69f00' },
  sev1: { light: '#b02a1c', dark: '#b83324' },
  onSev2: { light: '#1b1f24', dark: '#1b1f24' },
  onSev1: { light: '#ffffff', dark: '#ffffff' },
  series1: { light: '#0072b2', dark: '#56b4e9' },
  series2: { light: '#d55e00', dark: '#ff8c3b' },
  series3: { light: '#007a5a', dark: '#2fc498' },
  series4: { light: '#a3457a', dark: '#e3a0c6' },
  series5: { light: '#8a6200', dark: '#e6b43c' },
  series6: { light: '#57606a', dark: '#a6adb5' },
} as const satisfies Readonly<Record<string, Shades>>

export type Colour = keyof typeof PALETTE
export type Theme = keyof Shades

/** A colour for an attribute of an SVG; which shade it is, CSS or `inTheme` say. */
export function paint(colour: Colour): string {
  return `var(--${colour})`
}

/** The custom properties that give the colours of one theme, for CSS. */
export function customProperties(theme: Theme): string {
  return Object.entries(PALETTE)
    .map(([colour, shades]) => `--${colour}:${shades[theme]}`)
    .join(';')
}

/** An SVG with the colours of one theme written out, for readers that know no CSS. */
export function inTheme(svg: string, theme: Theme): string {
  return svg.replace(/="var\(--(\w+)\)"/g, (attribute, name: string) =>
    name in PALETTE ? `="${PALETTE[name as Colour][theme]}"` : attribute,
  )
}
