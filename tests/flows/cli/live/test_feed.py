"""`tickline feed --venue binance`: an exchange's ticks on a broker, until SIGTERM."""

N = 60
