"""The maths of re-ranking: functions of similarities and rows, apart from the estimators."""
