const THEMES = ['auto', 'light', 'dark'] as const
type Theme = (typeof THEMES)[number]

const KEY = 'meshfever-theme'

/** Auto, light, dark, by a button; what was chosen is remembered where the browser allows it. */
export function startTheme(button: HTMLElement, changed: () => void): void {
  let theme = remembered()
  const apply = (): void => {
    if (theme === 'auto') delete document.documentElement.dataset['theme']
    else document.documentElement.dataset['theme'] = theme
    button.textContent = `Theme: ${theme}`
  }
  apply()
  button.addEventListener('click', () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? 'auto'
    try {
      localStorage.setItem(KEY, theme)
    } catch {
      // Storage is forbidden: the choice holds for this visit.
    }
    apply()
    changed()
  })
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed)
}

function remembered(): Theme {
  try {
    return THEMES.find((theme) => theme === localStorage.getItem(KEY)) ?? 'auto'
  } catch {
    return 'auto'
  }
}
